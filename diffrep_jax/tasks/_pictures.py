"""Pictures for people: labelled grids of images and animations, written with Pillow. uint8 arrays in."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffrep_jax.runs.layout import writing

Path = str | os.PathLike[str]

GAP = 2  # pixels between cells
MIN_CELL = 64  # smaller images are enlarged by a whole factor
FONT_SIZE = 13


def labelled_grid(rows: Mapping[str, np.ndarray], columns: Sequence[str] = ()) -> np.ndarray:
    """Rows of images [n, h, w, c] with their names at the left -> one RGB picture [H, W, 3], white between cells.

    columns: names above the cells, as many as the first row has.
    """
    font = ImageFont.load_default(FONT_SIZE)
    margin = max(int(font.getlength(name)) for name in rows) + 12
    bands = []
    for name, images in rows.items():
        cells = [np.pad(enlarge(image), ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=255) for image in images]
        band = np.concatenate(cells, axis=1)
        label = Image.new("RGB", (margin, band.shape[0]), "white")
        ImageDraw.Draw(label).text((6, band.shape[0] / 2), name, fill="black", font=font, anchor="lm")
        bands.append(np.concatenate([np.asarray(label), band], axis=1))
    if columns:
        cell = (bands[0].shape[1] - margin) / len(columns)
        header = Image.new("RGB", (bands[0].shape[1], FONT_SIZE + 8), "white")
        for i, name in enumerate(columns):
            place = (margin + (i + 0.5) * cell, header.height / 2)
            ImageDraw.Draw(header).text(place, name, fill="black", font=font, anchor="mm")
        bands.insert(0, np.asarray(header))
    width = max(band.shape[1] for band in bands)
    return np.concatenate([np.pad(b, ((0, 0), (0, width - b.shape[1]), (0, 0)), constant_values=255) for b in bands])


def enlarge(image: np.ndarray) -> np.ndarray:
    """[h, w, c] -> RGB, at least MIN_CELL pixels high, each pixel repeated."""
    factor = max(1, -(-MIN_CELL // image.shape[0]))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def save_png(path: Path, picture: np.ndarray) -> None:
    with writing(path) as file:
        Image.fromarray(np.ascontiguousarray(picture)).save(file, format="PNG")


def save_gif(path: Path, images: Sequence[np.ndarray], milliseconds: int = 120) -> None:
    """An endless animation of the images, forth and back."""
    frames = [Image.fromarray(np.ascontiguousarray(enlarge(image))) for image in images]
    frames += frames[-2:0:-1]
    options = {"save_all": True, "append_images": frames[1:], "duration": milliseconds, "loop": 0}
    with writing(path) as file:
        frames[0].save(file, format="GIF", **options)
