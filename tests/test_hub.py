"""hf://owner/name: what is pushed opens again from a local server, is held against its hashes, and works offline."""

import builtins
import json
import shutil

import numpy as np
import pytest

import diffrep_jax
from diffrep_jax.errors import UserError
from diffrep_jax.readout.head import Head
from diffrep_jax.runs import hub
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.tasks import base
from tests.hub_server import serving
from tests.tiny import tiny_config

TOP, HEADS = ["ema_0.99_0000004.safetensors"], "probe/measures_digits.npz"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A `Hub` that HF_ENDPOINT names, and an empty cache."""
    from huggingface_hub import constants

    with serving() as (repositories, address):
        # The library reads the environment when it is imported.
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield repositories


def head(model, fingerprint):
    d = model.latent_dim
    moments = {"mean": np.zeros(d, np.float32), "std": np.ones(d, np.float32), "fingerprint": fingerprint}
    kernel, bias = np.arange(d, dtype=np.float32)[:, None], np.ones(1, np.float32)
    return Head(names=("ink",), kernel=kernel, bias=bias, kind="mse", dataset="digits", trained_by="probe", **moments)


@pytest.fixture
def pushed(server, tiny_run, tiny_model, tmp_path):
    """The same with the tiny run as me/digits, pushed by --task=export: with two heads, one of other weights."""
    run, own = tmp_path / "run", tiny_model.fingerprint()
    shutil.copytree(tiny_run, run)
    (run / "probe").mkdir()
    write_arrays(run / "probe" / "measures_digits.npz", **head(tiny_model, own).arrays())
    write_arrays(run / "probe" / "classes_digits.npz", **head(tiny_model, own + 1).arrays())
    base.build("export", {"push": "me/digits", "dtype": "bfloat16"}, {}).run(tiny_model, Run.at(run, tiny_config()))
    return server


def test_what_is_pushed_opens_again(pushed, tiny_model, tmp_path):
    empty, files = pushed.repositories["me/digits"]
    assert not empty and sorted(files) == ["README.md", "config.json", *TOP, HEADS]
    assert pushed.private["me/digits"]
    assert 'diffrep_jax.load("hf://me/digits")' in files["README.md"].decode()
    assert json.loads(files["config.json"])["method"]["name"] == "dbae"
    for address in ("hf://me/digits", "hf://me/digits@main"):
        model = diffrep_jax.load(address)
        expected = diffrep_jax.load(tmp_path / "run" / "export")
        np.testing.assert_array_equal(model.encode(IMAGES), expected.encode(IMAGES))


def test_heads_go_with_the_weights(pushed, tiny_model, tmp_path):
    model = diffrep_jax.load("hf://me/digits")
    for place in ("hf://me/digits", "hf://me/digits@main", tmp_path / "run" / "export"):
        heads = diffrep_jax.load_heads(place, model)
        assert list(heads) == ["measures"] and heads["measures"].names == ("ink",)
        np.testing.assert_array_equal(heads["measures"].kernel, head(tiny_model, 0).kernel)
    commits = pushed.repositories["me/digits"]
    commits.append({name: data for name, data in commits[-1].items() if name != HEADS})
    with pytest.raises(UserError, match="hf://me/digits has no heads of these weights"):
        diffrep_jax.load_heads("hf://me/digits", model)


def test_heads_of_an_earlier_push_go_with_it(pushed, tmp_path):
    hub.push(tmp_path / "run" / "export", ["config.json", *TOP], "me/digits")
    assert HEADS not in pushed.repositories["me/digits"][-1]


@pytest.mark.parametrize("content", [b"PK", b"cos\nsystem\n", None])
def test_what_is_no_head_is_one_line(pushed, tmp_path, content):
    """A pickle of an object array is not opened."""
    if content is None:
        np.savez(tmp_path / "bad.npz", kernel=np.array([{"a": 1}], object))
        content = (tmp_path / "bad.npz").read_bytes()
    pushed.repositories["me/digits"][-1][HEADS] = content
    with pytest.raises(UserError, match="measures_digits.npz is no head that can be read") as caught:
        diffrep_jax.load_heads("hf://me/digits", diffrep_jax.load("hf://me/digits"))
    assert "\n" not in str(caught.value)


def test_a_second_push_takes_the_place_of_the_first(pushed, tmp_path):
    folder = tmp_path / "run" / "export"
    (weights,) = folder.glob("*.safetensors")
    newer = weights.rename(folder / "ema_0.99_0000009.safetensors")
    address = hub.push(folder, [newer.name, "config.json", "README.md"], "me/digits")
    assert address.endswith("/me/digits/commit/" + f"{2:040x}")
    assert sorted(pushed.repositories["me/digits"][-1]) == ["README.md", "config.json", newer.name]
    assert newer.name in {path.name for path in hub.fetch("hf://me/digits").iterdir()}
    assert newer.name not in {path.name for path in hub.fetch("hf://me/digits@v1").iterdir()}


def test_nothing_but_weights_config_and_card_is_taken(pushed):
    """Neither code nor pickles, whatever a repository has."""
    pushed.repositories["me/digits"][-1] |= {"model.py": b"raise SystemExit", "model.pt": b"", "x/b.safetensors": b"no"}
    names = {path.name for path in hub.fetch("hf://me/digits").iterdir()}
    assert names - {"x"} == {"README.md", "config.json", *TOP, "probe"}
    assert not [path for _, path in pushed.asked if path.endswith((".py", ".pt"))]


def test_what_was_loaded_once_opens_without_the_server(pushed, monkeypatch):
    before = hub.fetch("hf://me/digits")
    asked = len(pushed.asked)
    assert hub.fetch("hf://me/digits") == before
    assert not [path for _, path in pushed.asked[asked:] if "/resolve/" in path]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_api.HfApi.model_info", refuse)
    assert hub.fetch("hf://me/digits") == before
    with pytest.raises(UserError, match="hf://me/other cannot be reached and is not here: check the network"):
        hub.fetch("hf://me/other")


def refuse(*arguments, **settings):
    raise ConnectionError("no route")


@pytest.mark.parametrize("name", ["config.json", *TOP, HEADS])
def test_a_file_that_is_not_what_the_hub_has_is_refused_and_deleted(pushed, name):
    right = pushed.repositories["me/digits"][-1][name]
    pushed.damage[name] = bytes([right[0] ^ 1]) + right[1:]
    with pytest.raises(
        UserError, match=f"{name.rpartition('/')[2]} of hf://me/digits is not the file that the Hub has"
    ):
        hub.fetch("hf://me/digits")
    pushed.damage.clear()
    assert (hub.fetch("hf://me/digits") / name).read_bytes() == right


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://digits", "is no address on the Hub; write hf://OWNER/NAME"),
        ("hf://me/../x", "is no address on the Hub"),
        ("hf://me/nothing", "is not there or private: check the name"),
        ("hf://me/digits@v7", "there is no such revision"),
        ("hf://me/digits@v0", "is no exported run: it has no config.json or no .safetensors"),
    ],
)
def test_addresses_of_nothing_are_refused_in_one_line(pushed, address, message):
    with pytest.raises(UserError, match=message) as caught:
        diffrep_jax.load(address)
    assert "\n" not in str(caught.value)


def test_a_push_without_the_right_is_refused_in_one_line(pushed, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match="hf://me/digits: the Hub refused .*403.*; set HF_TOKEN") as caught:
        hub.push(tmp_path / "run" / "export", ["config.json"], "me/digits")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="config.tasks.export.push=digits names no repository; write OWNER/NAME"):
        base.build("export", {"push": "digits"}, {})


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def importing(name, *arguments):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(UserError, match=r"pip install 'diffrep_jax\[hub\]'"):
        diffrep_jax.load("hf://me/digits")
