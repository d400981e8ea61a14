"""What tells images from others: of each kind of source, of splits; lists of archives, and labels without images."""

import os
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import open_dataset
from diffrep_jax.data.sources import open_source
from diffrep_jax.errors import UserError
from tests.made_data import write_lmdb, write_zip


def pixels(seed, count):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)


def write_images(folder, seed=0, count=3):
    """Grey pictures 0.bmp, 1.bmp, ..., all of one size in bytes."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(pixels(seed, count)):
        Image.fromarray(image).save(folder / f"{i}.bmp")


def write_source(kind, folder, seed):
    """The same names and sizes for each seed; the times differ, as clocks of file systems are coarse."""
    path = _write_source(kind, folder, seed)
    for file in folder.rglob("*"):
        os.utime(file, (seed, seed))
    return path


def _write_source(kind, folder, seed):
    folder.mkdir(exist_ok=True)
    if kind == "folder":
        write_images(folder / "f", seed, 3)
        return folder / "f"
    if kind == "npz":
        np.savez(folder / "a.npz", images=pixels(seed, 3)[..., None])
        return folder / "a.npz"
    write_images(folder / "f", seed, 3)
    files = {f"{i}.bmp": (folder / "f" / f"{i}.bmp").read_bytes() for i in range(3)}
    if kind == "zip":
        return write_zip(folder / "a.zip", files)
    if kind == "lmdb":
        shutil.rmtree(folder / "a.lmdb", ignore_errors=True)
        return write_lmdb(folder / "a.lmdb", "%d.bmp", list(files.values()), length=False)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name in files:
            archive.add(folder / "f" / name, name)
    return folder / "a.tar"


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "lmdb", "npz"])
def test_a_fingerprint_is_that_of_the_images_wherever_they_lie(kind, tmp_path):
    path = write_source(kind, tmp_path / "a", seed=0)
    first = open_source(path)
    assert first.kind == kind and len(first) == 3
    fingerprint = first.fingerprint()
    assert open_source(path).fingerprint() == fingerprint and len(bytes.fromhex(fingerprint)) == 32
    assert pickle.loads(pickle.dumps(first)).fingerprint() == fingerprint
    shutil.move(tmp_path / "a", tmp_path / "b")
    path = tmp_path / "b" / path.name
    assert open_source(path).fingerprint() == fingerprint
    size = path.stat().st_size
    write_source(kind, tmp_path / "b", seed=1)
    assert path.stat().st_size == size and open_source(path).fingerprint() != fingerprint


@pytest.mark.parametrize("kind", ["zip", "tar", "npz"])
def test_the_list_of_an_archive_is_not_used_for_another(kind, tmp_path):
    """A worker that opens it later would take images from where others were."""
    source = open_source(write_source(kind, tmp_path, seed=0))
    for_a_worker = pickle.dumps(source)
    write_source(kind, tmp_path, seed=1)
    with pytest.raises(UserError, match="was changed while it was being read: run the command again"):
        pickle.loads(for_a_worker)[0]


def test_splits_of_one_source_have_fingerprints_of_their_own(tmp_path):
    write_images(tmp_path, count=20)
    request = {"image_size": 8, "channels": 1, "data_dir": tmp_path}
    splits = {s: open_dataset("folder", split=s, **request).fingerprint() for s in ("all", "train", "test")}
    assert len(set(splits.values())) == 3
    digits = open_dataset("digits", split="train", image_size=8, channels=1)
    assert digits.fingerprint() == open_dataset("digits", split="train", image_size=16, channels=3).fingerprint()


def test_labels_are_those_of_the_examples():
    digits = open_dataset("digits", split="test", image_size=8, channels=1, attributes=True)
    for i in (0, 5, 296):
        example = digits[i]
        assert digits.labels_of(i)["label"] == example["label"] and digits.labels_of(i).keys() == {
            "label",
            "attributes",
        }
        np.testing.assert_array_equal(digits.labels_of(i)["attributes"], example["attributes"])
    with pytest.raises(UserError, match="Index 297 is out of range"):
        digits.labels_of(297)
