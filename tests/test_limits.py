"""The limits of single images, config.data.max_pixels and max_bytes: at their edge, in workers, on the command line."""

import numpy as np
import pytest
from PIL import Image

from diffrep_jax import data
from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
from diffrep_jax.errors import UserError
from tests.made_data import encoded
from tests.test_cli import command


@pytest.fixture
def small(monkeypatch):
    """12 pixels and 1,000 bytes, until the test is over."""
    monkeypatch.setattr(limits, "_used", [limits.Limits(pixels=12, bytes=1000)])


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_as_many_pixels_as_the_limit_decode_and_one_more_does_not(small, form):
    assert decode(encoded(Image.new("RGB", (4, 3)), form)).shape == (3, 4, 3)
    with pytest.raises(BadEntry, match="13 x 1 pixels, more than the 12 of config.data.max_pixels: scale it down"):
        decode(encoded(Image.new("RGB", (13, 1)), form))


def test_arrays_of_images_are_held_to_the_same_limit(small, tmp_path):
    for name, width in (("fits", 4), ("large", 5)):
        np.savez(tmp_path / f"{name}.npz", images=np.zeros((2, 3, width, 3), np.uint8))
    request = {"split": "all", "image_size": 4, "channels": 3}
    assert len(data.open_dataset("folder", data_dir=tmp_path / "fits.npz", **request)) == 2
    with pytest.raises(UserError, match="5 x 3 pixels, more than the 12 of config.data.max_pixels; scale them down"):
        data.open_dataset("folder", data_dir=tmp_path / "large.npz", **request)


@pytest.mark.parametrize("worker_kind", ["thread", "process"])
def test_workers_of_either_kind_hold_to_the_limit(small, tmp_path, worker_kind):
    for number in range(4):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    dataset = data.open_dataset("folder", split="all", image_size=4, channels=3, data_dir=tmp_path)
    loading = data.Loading(seed=0, batch_size=2, start_step=0, workers=1, worker_kind=worker_kind)
    with pytest.raises(Exception, match="config.data.max_pixels"):
        next(data.train_batches(dataset, loading, flip=False))


def test_the_command_takes_them_from_the_config(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    arguments = ["--task=inspect_data", "--config=configs/ddpm_digits.py", f"--workdir={tmp_path / 'run'}"]
    arguments += [
        "--config.data.name=folder",
        f"--data_dir={tmp_path / 'a.png'}",
        "--config.tasks.inspect_data.split=all",
    ]
    code, output = command(*arguments, "--config.data.max_pixels=80")
    (listed,) = (tmp_path / "run").rglob("bad_entries.txt")
    assert code == 2 and "9 x 9 pixels, more than the 80 of config.data.max_pixels" in listed.read_text(), output
    code, output = command(*arguments, "--config.data.max_pixels=0")
    assert code == 2 and output.count("\n") == 1 and "config.data.max_pixels" in output
