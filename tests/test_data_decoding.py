"""Decoding: Pillow's pixels, upright, whatever the metadata say; no other programs, and limits from headers."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from diffrep_jax.data import decoding, transforms
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
from diffrep_jax.errors import UserError
from tests.made_data import scene
from tests.tiny import ROOT

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def encode(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def chunk(kind, body, checksum=None):
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return len(body).to_bytes(4, "big") + kind + body + checksum.to_bytes(4, "big")


def exif_block(kind, value, order="<"):
    """An EXIF block with nothing but an orientation of this TIFF type."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + head + struct.pack(f"{order}IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


def segment(marker, body):
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def test_decode_gives_pillows_pixels():
    colour, grey = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:, :, 0])
    for image in (colour, grey):
        for options in (
            {"format": "PNG"},
            {"format": "JPEG", "quality": 90},
            {"format": "WEBP", "lossless": True},
        ):
            data = encode(image, **options)
            opened = Image.open(io.BytesIO(data))
            np.testing.assert_array_equal(decode(data), np.asarray(opened.convert("RGB")))
            np.testing.assert_array_equal(decode(data, 1)[:, :, 0], np.asarray(opened.convert("L")))


def test_decode_of_simplejpeg_equals_pillows_and_leaves_it_the_hard_files(monkeypatch):
    pytest.importorskip("simplejpeg")
    image = Image.fromarray(PIXELS).resize((178, 218))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encode(image, format="JPEG", quality=q, subsampling=s) for q in (75, 95) for s in (0, 1, 2)]
    files += [encode(image.convert(mode), format="JPEG") for mode in ("L", "CMYK")]
    files += [encode(image, format="JPEG", exif=exif)]
    fast = [decode(data, channels) for data in files for channels in (1, 3)]
    monkeypatch.setattr(decoding, "_simplejpeg", lambda: None)
    slow = [decode(data, channels) for data in files for channels in (1, 3)]
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)


def test_decode_turns_the_image_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    for form in ("PNG", "JPEG"):
        upright = decode(encode(Image.fromarray(PIXELS), format=form))
        turned = decode(encode(Image.fromarray(PIXELS), format=form, exif=exif))
        np.testing.assert_array_equal(turned, np.rot90(upright, k=-1))


def test_decode_lays_transparency_on_white():
    rgba = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    rgba[:, 20:, 3] = 255
    decoded = decode(encode(Image.fromarray(rgba), format="PNG"))
    assert (decoded[:, :20] == 255).all()
    np.testing.assert_array_equal(decoded[:, 20:], PIXELS[:, 20:])

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert decode(encode(palette, format="PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    clear = encode(palette, format="PNG", transparency=0)
    assert decode(clear).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_decode_of_16_bit_grey_keeps_the_shades():
    shades = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        decoded = decode(encode(Image.fromarray(shades), format=form))
        assert decoded.tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_decode_of_cmyk_and_of_one_bit():
    cmyk = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="JPEG", quality=100)  # red
    np.testing.assert_allclose(decode(cmyk)[4, 4], [255, 0, 0], atol=3)
    bits = encode(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), format="PNG")
    assert decode(bits, 1).tolist() == [[[0], [255]]]


def test_decode_names_what_does_not_decode():
    jpeg = encode(Image.fromarray(PIXELS), format="JPEG")
    floats = encode(Image.fromarray(np.ones((2, 2), np.float32)), format="TIFF")
    for data in (
        b"",
        b"not an image",
        jpeg[: len(jpeg) // 2],
        encode(Image.fromarray(PIXELS), format="PNG")[:60],
        floats,
    ):
        with pytest.raises(UserError, match="Entry 7 of x does not decode"):
            decode(data, place="Entry 7 of x")


# --- metadata


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG"])
def test_every_orientation_is_pillows_and_others_are_none(form):
    if form not in decoding._formats():
        pytest.skip(f"this Pillow has no {form}")
    lossless = {"lossless": True} if form == "WEBP" else {}
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(Image.fromarray(PIXELS), format=form, exif=exif, **lossless)
        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        np.testing.assert_array_equal(decode(data), np.asarray(expected), err_msg=str(orientation))


@pytest.mark.parametrize(
    ("block", "turned"),
    [
        (exif_block(3, b"\x06\0\0\0"), True),
        (exif_block(3, b"\0\x06\0\0", ">"), True),
        (exif_block(4, b"\x06\0\0\0"), True),
        (exif_block(8, b"\x06\0\0\0"), True),  # a signed number, as some editors write it
        (exif_block(3, b"\xff\xff\0\0"), False),
        (exif_block(2, b"6\0\0\0"), False),  # text
        (exif_block(77, b"\x63\0\0\0"), False),
        (exif_block(3, b"\x06\0\0\0")[:20], False),
        (b"Exif\0\0II*\0\xff\xff\xff\xff", False),
        (b"Exif\0\0" + bytes(40), False),
    ],
)
def test_damage_to_metadata_costs_the_rotation_at_most(block, turned):
    expected = np.rot90(PIXELS, k=-1) if turned else PIXELS
    png = encode(Image.fromarray(PIXELS), format="PNG")
    png = png[:33] + chunk(b"eXIf", block.removeprefix(b"Exif\0\0")) + png[33:]
    np.testing.assert_array_equal(decode(png), expected)
    jpeg = encode(Image.fromarray(PIXELS), format="JPEG")
    upright = decode(jpeg)
    jpeg = jpeg[:2] + segment(0xE1, block) + jpeg[2:]
    np.testing.assert_array_equal(decode(jpeg), np.rot90(upright, k=-1) if turned else upright)


@pytest.mark.parametrize(
    "remark",
    [
        chunk(b"tEXt", b"a\0b", checksum=0),
        chunk(b"iCCP", b"no profile"),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26))),
        chunk(b"pHYs", b"1"),
        chunk(b"sRGB", b""),
        chunk(b"gAMA", b"\0"),
        chunk(b"cHRM", b"\0"),
        chunk(b"acTL", b"\0"),
        chunk(b"fcTL", b"\0\0"),
    ],
)
def test_a_png_with_a_damaged_remark_has_its_pixels(remark):
    png = encode(Image.fromarray(PIXELS), format="PNG")
    turned = png[:33] + remark + chunk(b"eXIf", exif_block(3, b"\x06\0\0\0")[6:]) + png[33:]
    np.testing.assert_array_equal(decode(turned), np.rot90(PIXELS, k=-1))


@pytest.mark.parametrize(
    ("marker", "body"),
    [(0xE2, b"MPF\0II*\0\xff\xff\xff\xff"), (0xED, b"Photoshop 3.0\08BIM\x03"), (0xE2, b"ICC_PROFILE\0\x05\x01abc")],
)
def test_a_jpeg_with_a_damaged_remark_has_its_pixels(marker, body):
    jpeg = encode(Image.fromarray(PIXELS), format="JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spoiled = decode(jpeg[:2] + segment(marker, body) + jpeg[2:])
    np.testing.assert_array_equal(spoiled, decode(jpeg))


def test_exif_stands_behind_large_segments_too():
    jpeg = encode(Image.fromarray(PIXELS), format="JPEG")
    late = segment(0xE4, bytes(65000)) * 3 + segment(0xE1, exif_block(3, b"\x06\0\0\0"))
    np.testing.assert_array_equal(decode(jpeg[:2] + late + jpeg[2:]), np.rot90(decode(jpeg), k=-1))


def test_warnings_of_pillow_are_not_printed_without_a_name():
    """They name no file, and what they are about is decided here."""
    script = """
import contextlib, io
from PIL import Image
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
jpeg = io.BytesIO()
exif = Image.Exif()
exif[0x010E] = "x" * 200
Image.new("RGB", (8, 8)).save(jpeg, "TIFF", tiffinfo=exif)
data = bytearray(jpeg.getvalue())
decode(bytes(data[:8] + data[8:]))
at = data.index((0x010E).to_bytes(2, "little"))
data[at + 4 : at + 8] = (10**9).to_bytes(4, "little")
with contextlib.suppress(BadEntry):  # not every Pillow reads it
    assert decode(bytes(data)).shape == (8, 8, 3)
Image.new("L", (9500, 9500)).save(png := io.BytesIO(), "PNG", compress_level=1)  # Pillow warns above 89 million pixels
print(decode(png.getvalue(), 1).shape)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(9500, 9500, 1)\n", "")


# --- formats


def test_formats_that_pillow_decodes_by_itself():
    picture = scene(0, 24, 16)
    for form in ("AVIF", "BMP", "DDS", "GIF", "JPEG2000", "PCX", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"):
        if form in decoding._formats() and form in Image.SAVE:
            image = picture.quantize(256) if form == "GIF" else picture
            data = encode(image, format=form, **({"lossless": True} if form in ("WEBP", "AVIF") else {}))
            expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            np.testing.assert_array_equal(decode(data), expected, err_msg=form)
            assert decoding.describe(data)[0] == form and decoding.is_image(data)


def test_postscript_never_runs_a_program(tmp_path, monkeypatch):
    gs = tmp_path / "gs"
    gs.write_text(f"#!/bin/sh\ntouch {tmp_path}/it-ran\n")
    gs.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BadEntry, match="a.png does not decode .it is no image"):
        decode(encode(Image.fromarray(PIXELS), format="EPS"), place="a.png")
    assert not (tmp_path / "it-ran").exists()


def test_colours_of_photographers_come_in_colour_and_grey():
    """L*a*b* has no direct way to grey in Pillow."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    picture = scene(3, 24, 16)
    image = ImageCms.applyTransform(picture, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    data = encode(image, format="TIFF")
    assert np.abs(decode(data).astype(int) - np.asarray(picture)).mean() < 4  # of 255: gamut and rounding
    luma = np.asarray(picture.convert("L"), int)
    assert decode(data, 1).shape == (16, 24, 1) and np.abs(decode(data, 1)[:, :, 0] - luma).mean() < 4


# --- limits


def declared(width, height):
    """A PNG that says that it has so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(13_000, 13_000), (1 << 30, 1 << 30), (2_000_000_000, 1)])
def test_bombs_are_refused_from_their_headers(size):
    with pytest.raises(BadEntry, match=r"bomb.png .* pixels.*: scale it down") as caught:
        decode(declared(*size), place="bomb.png")
    assert "\n" not in str(caught.value)


def test_large_images_are_copied_in_strips(monkeypatch):
    clear = scene(0, 33, 29)
    clear.putalpha(scene(1, 33, 29).convert("L"))
    deep = Image.fromarray(np.random.default_rng(0).integers(0, 1 << 16, (29, 33), np.uint16))
    palette = scene(2, 33, 29).quantize(20)
    files = [encode(image, format="PNG") for image in (Image.fromarray(PIXELS), clear, deep, palette)]
    files += [encode(palette, format="PNG", transparency=3), encode(scene(0, 33, 29), format="TIFF")]
    whole = [decode(data, channels) for data in files for channels in (1, 3)]
    monkeypatch.setattr(decoding, "STRIP", 7 * 40)
    strips = [decode(data, channels) for data in files for channels in (1, 3)]
    for a, b in zip(whole, strips, strict=True):
        np.testing.assert_array_equal(a, b)


def test_whatever_the_bytes_are_the_error_is_a_bad_entry():
    rng = np.random.default_rng(0)
    forms = [form for form in ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PSD", "TIFF", "WEBP", "ICO") if form in Image.SAVE]
    whole = [encode(scene(i, 20, 16), format=form) for i, form in enumerate(forms)]
    decoded = 0
    for number in range(400):
        data = bytearray(whole[number % len(whole)])
        for at in rng.integers(0, min(len(data), 200), rng.integers(1, 6)):
            data[at] = rng.integers(256)
        data = data[: rng.integers(1, len(data))] if number % 3 == 0 else data
        for channels in (1, 3):
            try:
                decoded += decode(bytes(data), channels).shape[-1] == channels
            except BadEntry as error:
                assert str(error).startswith("The image ")
    assert 100 < decoded < 700


def test_an_image_file_is_read_or_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(Image.fromarray(PIXELS), format="PNG"))
    assert transforms.load_image(tmp_path / "a.png", 16, 1).shape == (16, 16, 1)
    for path in (tmp_path / "absent.png", tmp_path, tmp_path / ("x" * 5000)):
        with pytest.raises(UserError, match="image"):
            transforms.load_image(path, 16, 1)
