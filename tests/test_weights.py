"""Standard weight files: where they are looked for, what is fetched and kept, and what is refused."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.port import files
from diffrep_jax.tasks import _weights as weights
from tests import perceptual

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "more": np.zeros(2, np.float32)}
SHAPES = {"a": (2, 3)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diffrep_jax"


@pytest.fixture
def home(tmp_path):
    """A server with one file of tensors; (the file as it should be, the list of requests)."""
    files.write_safetensors(tmp_path / "served", TENSORS)
    content, requests = (tmp_path / "served").read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200 if self.path == "/net.pth" else 404)
            self.end_headers()
            self.wfile.write(content if self.path == "/net.pth" else b"")

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
    yield weights.WeightFile("net.pth", url, hashlib.sha256(content).hexdigest()), requests
    server.shutdown()
    server.server_close()


def test_a_file_is_fetched_once_and_then_found(home, cache):
    file, requests = home
    for _ in range(2):
        tensors = weights.read(file, SHAPES, None)
        assert set(tensors) == {"a"}
        np.testing.assert_array_equal(tensors["a"], TENSORS["a"])
    assert len(requests) == 1 and [path.name for path in cache.iterdir()] == ["net.pth"]


def test_a_file_of_the_cache_that_has_the_name_alone_is_fetched_again(home, cache, caplog):
    file, requests = home
    cache.mkdir(parents=True)
    files.write_safetensors(cache / file.name, {"a": -TENSORS["a"]})
    np.testing.assert_array_equal(weights.read(file, SHAPES, None)["a"], TENSORS["a"])
    assert len(requests) == 1 and "net.pth is not the standard file, its sha256 is" in caplog.text


def test_the_first_digits_of_a_checksum_are_enough(home):
    file, _ = home
    short = weights.WeightFile(file.name, file.url, file.sha256[:8])
    assert weights.read(short, SHAPES, None)["a"].shape == (2, 3)


def test_what_has_another_checksum_is_not_kept(home, cache):
    file, _ = home
    wrong = weights.WeightFile(file.name, file.url, "00000000")
    with pytest.raises(UserError, match=f"sha256 is {file.sha256[:8]}.*not 00000000.*--weights_dir"):
        weights.read(wrong, SHAPES, None)
    assert not list(cache.iterdir())


def test_what_cannot_be_fetched_is_said(home, cache):
    file, _ = home
    for url in (file.url + "x", "http://127.0.0.1:9/net.pth", "http://nowhere.invalid/net.pth"):
        with pytest.raises(UserError, match=f"net.pth is not at hand and cannot be fetched .*{url}.*--weights_dir"):
            weights.read(weights.WeightFile("net.pth", url, "00"), SHAPES, None)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_the_folder_that_is_given_comes_first(home, name, tmp_path):
    file, requests = home
    given = tmp_path / "given"
    given.mkdir()
    files.write_safetensors(given / name, {"a": -TENSORS["a"]})
    np.testing.assert_array_equal(weights.read(file, SHAPES, given)["a"], -TENSORS["a"])
    assert not requests
    with pytest.raises(UserError, match="--weights_dir .*nowhere is no folder"):
        weights.read(file, SHAPES, tmp_path / "nowhere")


def test_another_network_is_refused(home):
    file, _ = home
    with pytest.raises(UserError, match=r"not the standard file, its 'a' has the shape \(2, 3\), not \(3, 2\)"):
        weights.read(file, {"a": (3, 2)}, None)
    with pytest.raises(UserError, match="its 'b' is not there"):
        weights.read(file, SHAPES | {"b": (1,)}, None)


@pytest.mark.torch
def test_pytorch_files_are_read(home, tmp_path):
    torch = pytest.importorskip("torch")
    file, requests = home
    content = {name: torch.from_numpy(value) for name, value in TENSORS.items()}
    for legacy in (False, True):  # the files of 2017 have the old format
        torch.save(content, tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
        np.testing.assert_array_equal(weights.read(file, SHAPES, tmp_path)["a"], TENSORS["a"])
    assert not requests


def test_lpips_takes_two_files(tmp_path):
    """The standard names, and the tensors that the networks need."""
    alexnet, heads = perceptual.lpips_states()
    files.write_safetensors(tmp_path / "alexnet-owt-7be5be79.safetensors", alexnet)
    files.write_safetensors(tmp_path / "alex.safetensors", heads)
    layers = weights.lpips_weights(tmp_path)
    assert [layer["kernel"].shape for layer in layers][:2] == [(11, 11, 3, 64), (5, 5, 64, 192)]
    np.testing.assert_array_equal(layers[4]["head"], heads["lin4.model.1.weight"][0, :, 0, 0])
