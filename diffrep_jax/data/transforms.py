"""Images as uint8 [h, w, c] arrays: decode, crop, resize, flip; and uint8 0..255 <-> float32 in [-1, 1]."""

import functools
import io
import pathlib
from typing import Any

import numpy as np

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.errors import UserError


def decode(data: bytes, channels: int = 3, place: str = "The image") -> np.ndarray:
    """An encoded image (JPEG, PNG, WebP, ...) as uint8 [h, w, channels], upright as its EXIF rotation says.

    Transparency is laid on white. channels: 1 (luma) or 3 (grey is repeated). place: what the error names.
    Raises BadEntry when the bytes do not decode, also when they are cut short.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        pixels = _decode_jpeg(data)
        if pixels is not None and channels == 3:
            return pixels
        image = _decode_pillow(data) if pixels is None else Image.fromarray(pixels)
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        why = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise BadEntry(f"{place} does not decode ({why}): write it again as JPEG, PNG or WebP.") from error
    if channels == 1:
        return np.asarray(image.convert("L"))[:, :, None]
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """RGB pixels by simplejpeg, equal to Pillow's and twice as fast; None where it is not up to the file."""
    # simplejpeg knows nothing of EXIF; the marker stands before the image data.
    simplejpeg = _simplejpeg()
    if simplejpeg is None or not data.startswith(b"\xff\xd8") or b"Exif\0\0" in data[:65536]:
        return None
    try:
        # CMYK is inverted in Adobe's files: Pillow knows.
        if simplejpeg.decode_jpeg_header(data)[2] not in ("YCbCr", "Gray", "RGB"):
            return None
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError:
        return None  # Pillow has the last word, and the better message


@functools.cache
def _simplejpeg() -> Any:
    """The module, or None where it is not installed: looking for it in vain takes longer than many a decoding."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def _decode_pillow(data: bytes):
    """A Pillow image of 8 bits a channel, opaque and upright."""
    from PIL import Image, ImageOps

    image = Image.open(io.BytesIO(data))
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F":
        raise ValueError("it holds floats, whose range is unknown")
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow's own conversion clips at 255. White is 65535 = 257 * 255.
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def describe(data: bytes) -> tuple[str, str]:
    """The format and the mode of an image that decodes, as Pillow calls them: ("JPEG", "RGB")."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    return str(image.format), image.mode


def crop(image: np.ndarray, top: int, left: int, height: int, width: int, place: str = "The image") -> np.ndarray:
    """The box of uint8 [h, w, c] as [height, width, c]. Raises BadEntry when it is not inside the image."""
    h, w = image.shape[:2]
    if top + height > h or left + width > w:
        raise BadEntry(
            f"{place} has {w}x{h} pixels, too few for the crop of {width}x{height} at {left},{top}: "
            "store it at its published size."
        )
    return image[top : top + height, left : left + width]


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [h, w, c] -> [size, size, c]: the short side to `size`, then the centre."""
    return centre_crop(resize_short_side(image, size), size)


def resize_short_side(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [h, w, c] -> the same picture with a short side of `size` (Pillow's bilinear, antialiased).

    The long side is rounded down as torchvision's Resize does, which published numbers rest on.
    """
    from PIL import Image

    h, w, channels = image.shape
    if min(h, w) == size:
        return image
    new_h, new_w = size * h // min(h, w), size * w // min(h, w)
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    return np.asarray(picture.resize((new_w, new_h), Image.Resampling.BILINEAR)).reshape(new_h, new_w, channels)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The middle [size, size, c] of [h, w, c], h and w >= size; offsets are rounded as by torchvision's CenterCrop."""
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def flip(image: np.ndarray) -> np.ndarray:
    """Left and right exchanged; [..., w, c]."""
    flipped = np.empty_like(image)
    for channel in range(image.shape[-1]):  # four times as fast as all channels at once
        flipped[..., channel] = image[..., ::-1, channel]
    return flipped


def to_float(pixels: np.ndarray) -> np.ndarray:
    """uint8 0..255 -> float32 in [-1, 1], both ends met exactly."""
    return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float in [-1, 1] -> uint8 0..255, rounded and clipped; undoes `to_float`."""
    return np.clip(np.rint((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def load_image(path: pathlib.Path, size: int, channels: int) -> np.ndarray:
    """An image file, centre-cropped and resized to uint8 [size, size, channels].

    Raises UserError where the file is missing or does not decode.
    """
    if not path.is_file():
        raise UserError(f"No image file {path}; give a path to one, or an index into the split.")
    return resize(decode(path.read_bytes(), channels, f"The image {path}"), size)
