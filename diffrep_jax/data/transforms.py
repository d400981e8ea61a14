"""Images as uint8 [h, w, c] arrays: crop, resize, flip; and uint8 0..255 <-> float32 in [-1, 1]."""

import pathlib

import numpy as np

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
from diffrep_jax.errors import UserError, check_finite

__all__ = ["centre_crop", "crop", "decode", "flip", "load_image", "resize", "to_channels", "to_float", "to_uint8"]

STRETCHED = 8  # long side / short side from which on only the centre is resized


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [h, w, 1 or 3] with 1 channel, the luma, or 3, in which grey is repeated; as `decode` has it."""
    from PIL import Image

    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def crop(image: np.ndarray, top: int, left: int, height: int, width: int, place: str = "The image") -> np.ndarray:
    """The box of uint8 [h, w, c] as [height, width, c]. Raises BadEntry when it is not inside the image."""
    h, w = image.shape[:2]
    if top + height > h or left + width > w:
        raise BadEntry(
            f"{place} has {w}x{h} pixels, too few for the crop of {width}x{height} at {left},{top}: "
            "store it at its published size."
        )
    return image[top : top + height, left : left + width]


def resize(image: np.ndarray, size: int, short_side: int | None = None) -> np.ndarray:
    """uint8 [h, w, c] -> [size, size, c]: the short side to `short_side`, which is `size` by default, then the centre.

    Pillow's bilinear, antialiased. The long side is rounded down as torchvision's Resize does, which published numbers
    rest on. Of strips only the centre is resized, so that memory and time are set by `size`; some pixels are then one
    level off.
    """
    from PIL import Image

    h, w, channels = image.shape
    short = short_side or size
    if min(h, w) == short:
        return centre_crop(image, size)
    new_h, new_w = short * h // min(h, w), short * w // min(h, w)
    if max(h, w) < STRETCHED * min(h, w):
        picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
        resized = np.asarray(picture.resize((new_w, new_h), Image.Resampling.BILINEAR))
        return centre_crop(resized.reshape(new_h, new_w, channels), size)
    # (in pixels of the image) what becomes the centre, and what lies around it as far as the filter reaches
    scales = np.array([h / new_h, w / new_w])
    first = np.array([round((new_h - size) / 2), round((new_w - size) / 2)]) * scales
    reach = np.ceil(np.maximum(scales, 1)) + 1
    low = np.maximum(np.floor(first - reach), 0).astype(int)
    high = np.minimum(np.ceil(first + size * scales + reach), (h, w)).astype(int)
    part = image[low[0] : high[0], low[1] : high[1]]
    picture = Image.fromarray(part[:, :, 0] if channels == 1 else part)
    top, left = first - low
    box = (left, top, min(left + size * scales[1], part.shape[1]), min(top + size * scales[0], part.shape[0]))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box)).reshape(size, size, channels)


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
    """float in [-1, 1] -> uint8 0..255, rounded and clipped; undoes `to_float`. NotFinite for what is no number."""
    images = np.asarray(images, np.float32)
    check_finite(images, "Image", "no picture can be made of it.")
    return np.clip(np.rint((images + 1) * 127.5), 0, 255).astype(np.uint8)


def load_image(path: pathlib.Path, size: int, channels: int) -> np.ndarray:
    """An image file, centre-cropped and resized to uint8 [size, size, channels].

    Raises UserError where the file is missing or does not decode.
    """
    try:
        if not path.is_file():
            raise UserError(f"No image file {path}; give a path to one, or an index into the split.")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"The image {path} cannot be read ({error.strerror}); give a path to another one.") from error
    return resize(decode(data, channels, f"The image {path}"), size)
