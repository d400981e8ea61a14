"""Crop, resize and scale: Pillow's pixels and torchvision's offsets, with memory set by the wanted size."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import transforms
from diffrep_jax.errors import UserError
from tests.made_data import PEAK
from tests.tiny import ROOT

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ("shape", "size", "scaled", "box"),  # scaled: (w, h); box: left, top, right, bottom
    [
        ((30, 60), 15, (30, 15), (8, 0, 23, 15)),
        ((50, 20), 10, (10, 25), (0, 8, 10, 18)),
        ((30, 41), 16, (21, 16), (2, 0, 18, 16)),
        ((8, 8), 20, (20, 20), (0, 0, 20, 20)),
        ((20, 31), 20, (31, 20), (6, 0, 26, 20)),
        ((16, 16), 16, (16, 16), (0, 0, 16, 16)),
    ],
)
def test_resize_is_pillows_bilinear_and_a_centre_crop(shape, size, scaled, box):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    expected = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_array_equal(transforms.resize(pixels, size), np.asarray(expected))
    grey = Image.fromarray(pixels[:, :, 1]).resize(scaled, Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_array_equal(transforms.resize(pixels[:, :, 1:2], size)[:, :, 0], np.asarray(grey))


def test_crop_takes_the_box_or_says_that_it_does_not_fit():
    expected = Image.fromarray(PIXELS).crop((5, 2, 25, 12))
    np.testing.assert_array_equal(transforms.crop(PIXELS, top=2, left=5, height=10, width=20), np.asarray(expected))
    with pytest.raises(UserError, match="40x30 pixels, too few for the crop of 20x10 at 5,21"):
        transforms.crop(PIXELS, top=21, left=5, height=10, width=20)


def test_float_and_back():
    levels = np.arange(256, dtype=np.uint8)
    floats = transforms.to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[255] == 1
    np.testing.assert_allclose(np.diff(floats), 2 / 255, rtol=1e-4)
    np.testing.assert_array_equal(transforms.to_uint8(floats), levels)
    assert transforms.to_uint8(np.array([-1.5, 0.0039, 3.0])).tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    ("shape", "size", "short"), [((3, 900), 40, 40), ((900, 3), 40, 44), ((70, 2000), 32, 32), ((2000, 70), 64, 70)]
)
def test_the_centre_of_a_strip_is_that_of_the_whole_strip_resized(shape, size, short):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    h, w = shape
    scaled = Image.fromarray(pixels).resize((short * w // min(h, w), short * h // min(h, w)), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled.size)
    expected = np.asarray(scaled.crop((left, top, left + size, top + size)), int)
    for channels in (1, 3):
        found = transforms.resize(np.ascontiguousarray(pixels[..., :channels]), size, short)
        assert found.shape == (size, size, channels)
        difference = np.abs(found - expected[..., :channels])
        assert difference.max() <= 2 and (difference > 0).mean() < 0.1


def test_memory_is_set_by_the_wanted_size_not_by_the_inputs_shape():
    script = f"""{PEAK}
import numpy
from diffrep_jax.data.transforms import resize
strips = [numpy.zeros((h, w, 3), numpy.uint8) for h, w in ((1, 1_000_000), (1_000_000, 1), (2, 300_000))]
resize(strips[0][:, :9], 8)
before = peak()
assert all(resize(strip, 256).shape == (256, 256, 3) for strip in strips)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 20_000  # kB; whole strips would take gigabytes


def test_arrays_get_the_channels_that_are_wanted():
    luma = np.asarray(Image.fromarray(PIXELS).convert("L"))
    np.testing.assert_array_equal(transforms.to_channels(PIXELS, 1)[:, :, 0], luma)
    np.testing.assert_array_equal(transforms.to_channels(luma[:, :, None], 3), np.stack([luma] * 3, axis=-1))
    assert transforms.to_channels(PIXELS, 3) is PIXELS
