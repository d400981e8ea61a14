"""Uploads: photos become what a model takes, and what is no photo becomes one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data.decoding import outline
from diffrep_jax.errors import UserError
from launch import photos

HALVES = np.zeros((40, 40, 3), np.uint8)
HALVES[:20, :, 0] = 255  # red above, black below


def written(path, image, **options):
    image.save(path, **options)
    return path


def test_a_photo_is_turned_upright_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = written(tmp_path / "a.jpg", Image.fromarray(HALVES), quality=95, exif=exif)
    pixels, remarks = photos.read(path, 16, 3)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8 and not remarks
    assert pixels[2, :, 0].mean() < 20 and pixels[-3, :, 0].mean() > 230


def test_transparency_is_laid_on_white_and_cmyk_is_read(tmp_path):
    clear = written(tmp_path / "a.png", Image.new("RGBA", (32, 32), (255, 0, 0, 0)))
    assert photos.read(clear, 16, 3)[0].min() == 255
    cmyk = written(tmp_path / "b.jpg", Image.new("CMYK", (32, 32), (0, 255, 255, 0)))
    red = photos.read(cmyk, 16, 3)[0].reshape(-1, 3).mean(0)
    assert red[0] > 200 and red[1:].max() < 80


def test_remarks_name_what_was_done(tmp_path):
    frames = [Image.new("L", (32, 32), level) for level in (10, 120, 250)]
    animated = written(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    pixels, remarks = photos.read(animated, 16, 1)
    assert abs(int(pixels.mean()) - 10) < 4 and remarks == ["It has 3 frames: the first one is used."]
    small = written(tmp_path / "b.png", Image.new("L", (12, 12)))
    assert "12 x 12" in photos.read(small, 16, 1)[1][0]
    long = written(tmp_path / "c.png", Image.new("L", (300, 60)))
    assert "square in its middle" in photos.read(long, 16, 1)[1][0]


def png_header(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, b"IDAT")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def whole_jpeg():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "empty"),
        (b"PK\x03\x04 or anything", "no image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "no image"),
        (png_header(100_000, 900), "90,000,000|100,000 x 900"),
        (png_header(60_000, 60_000), "too many pixels|60,000 x 60,000"),
        (whole_jpeg()[:400], "does not decode"),
    ],
    ids=["empty", "text", "eps", "huge", "bomb", "cut short"],
)
def test_what_is_no_photo_is_one_line(content, says, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        photos.read(path, 16, 3)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_too_few_pixels_too_many_bytes_and_no_file(tmp_path, monkeypatch):
    tiny = written(tmp_path / "a.png", Image.new("RGB", (3, 3)))
    with pytest.raises(UserError, match="3 x 3 pixels, too few"):
        photos.read(tiny, 16, 3)
    monkeypatch.setattr(photos, "MOST_BYTES", 10)
    with pytest.raises(UserError, match="MB"):
        photos.read(tiny, 2, 3)
    with pytest.raises(UserError, match="No such file"):
        photos.read(tmp_path / "b.png", 16, 3)


def test_the_outline_is_the_headers(tmp_path):
    frames = [Image.new("L", (30, 20), level) for level in (0, 99)]
    gif = written(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert outline(gif.read_bytes()) == (30, 20, 2)
    assert outline(whole_jpeg()) == (64, 64, 1)


def test_a_photo_for_a_model_of_faces_is_to_be_cropped(tmp_path):
    wide = written(tmp_path / "a.png", Image.new("RGB", (40, 32)))
    assert photos.read(wide, 16, 3, "digits")[1] == []
    assert ["--task=align" in remark for remark in photos.read(wide, 16, 3, "ffhq")[1]] == [True]
