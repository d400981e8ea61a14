"""A photo that somebody uploads, as a model takes it, with what there is to say about it; or a line why it is none."""

import os
import pathlib

import numpy as np

from diffrep_jax.data import faces, framing
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode, outline
from diffrep_jax.data.transforms import resize
from diffrep_jax.errors import UserError

MOST_BYTES = 30_000_000
MOST_PIXELS = 50_000_000
ELONGATED = 2.5  # long side / short side from which on the crop is worth a remark


def read(path: str | os.PathLike[str], size: int, channels: int, learned: str = "") -> tuple[np.ndarray, list[str]]:
    """(uint8 [size, size, channels], remarks) of an image file: upright, on white, cropped to the square in its middle.

    learned: the data set that the model is of.
    Raises UserError for a file that is no image, is damaged, or is larger or smaller than makes sense.
    """
    path = pathlib.Path(path)
    try:
        length = path.stat().st_size
        if length > MOST_BYTES:
            raise UserError(f"The file has {length / 1e6:,.0f} MB; give an image of {MOST_BYTES / 1e6:.0f} MB at most.")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The file cannot be read ({error.strerror}); upload it again.") from None
    if not content:
        raise UserError("The file is empty; upload an image.")
    try:
        width, height, frames = outline(content, "The file")
        if width * height > MOST_PIXELS:
            raise UserError(f"The image has {width:,} x {height:,} pixels; scale it down, {MOST_PIXELS:,} are allowed.")
        pixels = decode(content, channels, "The file")
    except BadEntry as error:
        raise UserError(str(error)) from None
    height, width = pixels.shape[:2]  # upright
    short, long = sorted((width, height))
    if 2 * short < size:
        raise UserError(f"The image has {width} x {height} pixels, too few for this model; give one of {size} or more.")
    remarks = []
    if short < size:
        remarks.append(f"It has {width} x {height} pixels only, and is enlarged to {size}.")
    if long > ELONGATED * short:
        remarks.append("It is much longer than wide: only the square in its middle is used.")
    elif long > framing.SQUARE * short and learned in faces.OF_DATA:
        remarks.append("Only the square in its middle is used. Faces should be cropped as the model's: --task=align.")
    if frames > 1:
        remarks.append(f"It has {frames} frames: the first one is used.")
    return resize(pixels, size), remarks
