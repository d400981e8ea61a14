"""Data in a bucket, by fsspec's file system in memory and, where it is installed, an emulator of Google's."""

import base64
import hashlib
import json
import threading

import fsspec
import numpy as np
import pytest

from diffrep_jax import data
from diffrep_jax.data import bucket
from diffrep_jax.errors import UserError
from launch import main

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """memory://bucket/pictures, one file a picture, and its files' number of times that each was read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    monkeypatch.setattr(type(files), "store", {})
    monkeypatch.setattr(type(files), "pseudo_dirs", [""])
    from PIL import Image

    for i, picture in enumerate(PICTURES):
        with files.open(f"/bucket/pictures/{'ab'[i % 2]}/{i:02d}.png", "wb") as out:
            Image.fromarray(picture).save(out, "png")
    read = []
    whole = type(files).open
    monkeypatch.setattr(
        type(files), "open", lambda self, path, *a, **k: read.append(path) or whole(self, path, *a, **k)
    )
    return files, read


def opened(address="memory://bucket/pictures"):
    return data.open_dataset("folder", split="all", image_size=8, channels=3, data_dir=address)


def test_pictures_of_a_bucket_are_those_that_were_put_there(memory):
    dataset = opened()
    assert len(dataset) == 12 and dataset.class_names == ("a", "b")
    order = [*range(0, 12, 2), *range(1, 12, 2)]
    np.testing.assert_array_equal(np.stack([dataset[i]["image"] for i in range(12)]), PICTURES[order])


def test_only_what_changed_is_copied_again(memory):
    files, read = memory
    opened()
    assert len(read) == 12
    opened()
    assert len(read) == 12
    files.pipe("/bucket/pictures/a/00.png", files.cat("/bucket/pictures/a/02.png"))
    files.rm("/bucket/pictures/b/11.png")
    dataset = opened()
    assert len(dataset) == 11 and set(read[12:]) == {"/bucket/pictures/a/00.png"}
    np.testing.assert_array_equal(dataset[0]["image"], PICTURES[2])


def test_copies_of_two_machines_have_one_fingerprint(memory, tmp_path, monkeypatch):
    one = opened().source.fingerprint()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert opened().source.fingerprint() == one


def test_what_was_damaged_or_left_in_the_cache_is_mended(memory):
    files, read = memory
    folder = bucket.local("memory://bucket/pictures")
    (folder / "a/00.png").write_bytes(b"short")
    (folder / "a/.02.png.part").write_bytes(b"half")
    (folder / "a/04.png").unlink()
    opened()
    assert sorted(read[12:]) == ["/bucket/pictures/a/00.png", "/bucket/pictures/a/04.png"]
    assert not list(folder.rglob("*.part"))


def test_one_archive_is_a_file_with_its_name(memory, tmp_path):
    files, _ = memory
    np.savez(tmp_path / "pictures.npz", images=PICTURES)
    files.pipe("/bucket/pictures.npz", (tmp_path / "pictures.npz").read_bytes())
    dataset = opened("memory://bucket/pictures.npz")
    np.testing.assert_array_equal(dataset[7]["image"], PICTURES[7])


def test_nothing_there_is_one_line(memory):
    with pytest.raises(UserError, match=r"There is nothing at 'memory://bucket/other': .*--data_dir"):
        bucket.local("memory://bucket/other")
    with pytest.raises(UserError, match=r"'nowhere://a/b' cannot be read \(.*nowhere.*--data_dir"):
        bucket.local("nowhere://a/b")


def test_a_library_that_is_missing_is_named(monkeypatch, memory):
    def missing(address):
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(UserError, match=r"gs://a/b.*gcsfs.*diffrep_jax\[gcs\]"):
        bucket.local("gs://a/b")


def test_an_object_that_would_leave_the_cache_is_refused(memory, monkeypatch, tmp_path):
    files, _ = memory
    info = files.info("/bucket/pictures/a/00.png")
    monkeypatch.setattr(type(files), "find", lambda *a, **k: {"/bucket/pictures/../../x": info})
    with pytest.raises(UserError, match=r"'\.\.' in its name"):
        bucket.local("memory://bucket/pictures")
    assert not [path for path in tmp_path.rglob("x")]


def test_a_copy_with_another_checksum_is_not_kept(memory, monkeypatch):
    files, _ = memory
    content = files.cat("/bucket/pictures/a/00.png")
    right = base64.b64encode(hashlib.md5(content).digest()).decode()
    listed = type(files).find

    def with_checksum(value):
        def find(self, path, **how):
            rows = {name: dict(info) for name, info in listed(self, path, **how).items()}
            rows["/bucket/pictures/a/00.png"]["md5Hash"] = value
            return rows

        monkeypatch.setattr(type(files), "find", find)

    with_checksum(base64.b64encode(bytes(16)).decode())
    with pytest.raises(UserError, match=r"a/00.png' came with another MD5"):
        bucket.local("memory://bucket/pictures")
    with_checksum(right)
    folder = bucket.local("memory://bucket/pictures")
    assert (folder / "a/00.png").read_bytes() == content


def test_two_that_ask_at_once_copy_once(memory):
    files, read = memory
    both = threading.Barrier(2)

    def job():
        both.wait()
        bucket.local("memory://bucket/pictures")

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 12


def test_the_command_reads_an_address(memory, tmp_path, capsys):
    np.savez(tmp_path / "pictures.npz", images=PICTURES)
    address = f"file://{tmp_path}/pictures.npz"
    small = ["--config=configs/ddpm_digits.py", "--config.data.name=folder", f"--workdir={tmp_path / 'run'}"]
    main.run(["--task=inspect_data", *small, "--config.data.channels=3", f"--data_dir={address}"])
    assert json.loads((tmp_path / "run" / "inspect_data" / "metrics.json").read_text())
    with pytest.raises(SystemExit, match="2"):
        main.run(["--task=inspect_data", *small, "--data_dir=file:///not/there"])
    assert "error: There is nothing at 'file:///not/there'" in capsys.readouterr().err
