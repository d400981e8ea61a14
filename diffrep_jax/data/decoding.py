"""Encoded images to uint8 [h, w, c] arrays: formats that need no other program, limits read from headers, upright.

Metadata never decide over pixels: of all that a file says about itself only EXIF's orientation is read, and where that
or any other remark is damaged, the pixels are decoded without it.
"""

import functools
import io
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntry

if TYPE_CHECKING:
    from PIL import Image

# Raster formats that Pillow decodes by itself. EPS is not among them, since it runs Ghostscript; nor are WMF, FPX and
# stubs such as HDF5, which need other programs, nor MPEG and the scientific formats, which hold no pictures.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "DIB", "PSD", "ICO", "DDS"),
    *("SGI", "SUN", "PCX", "DCX", "ICNS", "CUR", "MSP", "XBM", "XPM", "TGA"),
)
STRIP = 1 << 24  # pixels that are copied at once
SILENCE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as `warnings` keeps a filter
ORIENTATION = 0x0112  # EXIF's tag
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # TIFF's types of whole numbers, as `struct` has them


def decode(data: bytes, channels: int = 3, place: str = "The image") -> np.ndarray:
    """An encoded image (JPEG, PNG, WebP, ...) as uint8 [h, w, channels], upright as its EXIF rotation says.

    Transparency is laid on white. channels: 1 (luma) or 3 (grey is repeated). place: what the error names.
    Raises BadEntry when the bytes do not decode, also when they are cut short, or say that they are too many pixels.
    """
    try:
        return _decode(data, channels)
    except limits.TooLarge as error:
        raise BadEntry(f"{place} {error}: scale it down.") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        bare = _without_metadata(data)
        if bare != data:
            try:
                return _upright(_decode(bare, channels), _orientation(_exif_of(data)))
            except Exception:  # the first error has the last word
                pass
        raise BadEntry(f"{place} does not decode ({_why(error)}): write it again as JPEG, PNG or WebP.") from error


def describe(data: bytes) -> tuple[str, str]:
    """The format and the mode of an image that decodes, as Pillow calls them: ("JPEG", "RGB")."""
    try:
        image = _open(data)
    except Exception:  # as `decode`: once more without what surrounds the pixels
        image = _open(_without_metadata(data))
    # A multi-picture file, as cameras write them, is a JPEG with more after its end.
    return ("JPEG" if image.format == "MPO" else str(image.format)), image.mode


def outline(data: bytes, place: str = "The image") -> tuple[int, int, int]:
    """(width, height, frames), by the header alone and as stored, before any rotation. Raises BadEntry for no image."""
    try:
        image = _open(data)
    except Exception:  # with the message of `decode`, or without what surrounds the pixels
        bare = _without_metadata(data)
        if not is_image(bare):
            decode(data, place=place)
        image = _open(bare)
    try:
        frames = 1 if image.format in ("MPO", "PSD", "ICNS") else getattr(image, "n_frames", 1)
    except Exception:  # of a damaged animation; its first frame may be whole
        frames = 1
    return *image.size, frames


def is_image(data: bytes) -> bool:
    """Whether the bytes begin as an image of one of the `FORMATS` does."""
    try:
        return bool(describe(data))
    except Exception:
        return False


def _why(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is no image"
    return str(error) or type(error).__name__


def _decode(data: bytes, channels: int) -> np.ndarray:
    pixels = _decode_jpeg(data)
    if pixels is None:
        image = _decode_pillow(data)
        orientation = _orientation(_exif_of(data, image))
    elif channels == 3:
        return pixels
    else:
        from PIL import Image

        image, orientation = Image.fromarray(pixels), 1
    return _upright(_pixels(image, "L" if channels == 1 else "RGB"), orientation)


def _pixels(image: "Image.Image", mode: str) -> np.ndarray:
    """uint8 [h, w, c]; large images in strips, since Pillow hands its pixels over by way of two copies."""
    width, height = image.size
    rows = max(1, STRIP // width)
    if height <= rows:
        return np.asarray(_convert(_flat(image), mode)).reshape(height, width, -1)
    strips = np.empty((height, width, 1 if mode == "L" else 3), np.uint8)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strips[top : top + rows] = np.asarray(_convert(_flat(strip), mode)).reshape(strip.height, width, -1)
    return strips


def _convert(image: "Image.Image", mode: str) -> "Image.Image":
    if image.mode == mode:
        return image
    try:
        return image.convert(mode)
    except ValueError:  # L*a*b* becomes RGB, but not grey
        if mode == "RGB":
            raise
        return image.convert("RGB").convert(mode)


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """RGB pixels by simplejpeg, equal to Pillow's and twice as fast; None where it is not up to the file."""
    # simplejpeg knows nothing of EXIF; the marker stands before the image data.
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not data.startswith(b"\xff\xd8") or _jpeg_exif(data):
        return None
    try:
        height, width, colours, *_ = simplejpeg.decode_jpeg_header(data)
        limits.check_pixels(width, height)
        if colours not in ("YCbCr", "Gray", "RGB"):
            return None  # CMYK is inverted in Adobe's files: Pillow knows
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except limits.TooLarge:
        raise
    except ValueError:
        return None  # Pillow has the last word, and the better message


@functools.cache
def _simplejpeg() -> Any:
    """The module, or None where it is not installed: looking for it in vain takes longer than many a decoding."""
    try:
        import simplejpeg  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return simplejpeg


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of the `FORMATS` that this Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _open(data: bytes) -> "Image.Image":
    """The image, of which only the header is read. Raises limits.TooLarge."""
    from PIL import Image

    # Pillow's warnings name no file, and are about metadata, which do not matter, or sizes, which are checked here.
    if warnings.filters[:1] != [SILENCE]:  # each time, as others may have set theirs since
        warnings.filterwarnings("ignore", module=SILENCE[3].pattern)
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise limits.TooLarge(f"has too many pixels ({error})") from error
    limits.check_pixels(*image.size)
    return image


def _decode_pillow(data: bytes) -> "Image.Image":
    """The image with all of its pixels, in the mode that it has."""
    image = _open(data)
    image.load()
    if image.mode == "F":
        raise ValueError("it holds floats, whose range is unknown")
    return image


def _flat(image: "Image.Image") -> "Image.Image":
    """An opaque Pillow image of 8 bits a channel."""
    from PIL import Image

    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255. White is 65535 = 257 * 255.
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image if image.mode == "RGBA" else image.convert("RGBA"))
        return white
    return image


# --- metadata


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[h, w, c] turned and mirrored as EXIF's orientation 1 to 8 asks; others are taken as 1."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _orientation(exif: bytes) -> int:
    """What an EXIF block says, 1 where it says nothing or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(entries):
            tag, kind, _ = struct.unpack_from(f"{order}HHI", exif, start + 2 + 12 * entry)
            if tag == ORIENTATION:
                return int(struct.unpack_from(order + INTEGERS.get(kind, "H"), exif, start + 10 + 12 * entry)[0])
    except struct.error:
        pass
    return 1


def _exif_of(data: bytes, image: "Image.Image | None" = None) -> bytes:
    """The EXIF block of encoded bytes, and of the Pillow image that they are; empty where there is none.

    A TIFF has none: Pillow turns it as it is decoded.
    """
    if data.startswith(b"\xff\xd8"):
        return _jpeg_exif(data)
    if image is None or image.format == "TIFF":
        return next((body for kind, body, _ in _png_chunks(data) if kind == b"eXIf"), b"")
    if isinstance(exif := image.info.get("exif"), bytes):
        return exif
    profile = image.info.get("Raw profile type exif")  # ImageMagick's way with PNG: three lines, then digits
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:])) if isinstance(profile, str) else b""
    except ValueError:
        return b""


def _jpeg_segments(data: bytes) -> list[tuple[int, int, int]]:
    """(marker, start, end) of what stands before the pixels of a JPEG."""
    segments, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in (0xDA, 0xD9):
        if data[at + 1] == 0xFF:  # a byte that fills up
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        segments.append((data[at + 1], at, end))
        at = end
    return segments


def _jpeg_exif(data: bytes) -> bytes:
    segments = ((data[start + 4 : end]) for marker, start, end in _jpeg_segments(data) if marker == 0xE1)
    return next((body for body in segments if body.startswith(b"Exif\0\0")), b"")


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(kind, body, all of it) of each chunk of a PNG as far as they are whole; none where it is no PNG."""
    chunks, at = [], 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : end - 4], data[at:end]))
        at = end
    return chunks


def _without_metadata(data: bytes) -> bytes:
    """A JPEG or PNG with nothing but its pixels and what they need; other files as they are."""
    if data.startswith(b"\xff\xd8"):
        segments = _jpeg_segments(data)
        # APP0 and APP14 say which colours are meant; the other APPn and the comments say nothing of the pixels.
        kept = [data[start:end] for marker, start, end in segments if not _is_remark(marker)]
        return b"".join([data[:2], *kept, data[segments[-1][2] :] if segments else data[2:]])
    if chunks := _png_chunks(data):
        return data[:8] + b"".join(whole for kind, _, whole in chunks if kind[:1].isupper() or kind == b"tRNS")
    return data


def _is_remark(marker: int) -> bool:
    return marker == 0xFE or (0xE0 < marker <= 0xEF and marker != 0xEE)
