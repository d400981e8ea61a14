"""Faces in photos: where the eyes are, and the crop by them that FFHQ, CelebA-HQ and CelebA were made with.

Between the eyes lies the middle m, from the left one in the picture to the right one goes e; n is e turned towards the
chin. The crop is a square along e and n, of the side `side` |e|, whose centre is m + `below` n. FFHQ's script takes
the larger of 4 |e| and 3.6 times the way to the mouth, and goes a tenth of that way down: with the mouth at 1.1 |e|, as
it is in a face seen from the front, that is 4 |e| and 0.11. In CelebA's aligned images the eyes are 38.3 pixels apart,
their middle at (88.5, 111.2), and the papers cut out 128 pixels from (25, 57) on.

The extra [faces], OpenCV 4, finds faces and eyes with the cascades in its package; nothing is downloaded.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from diffrep_jax.errors import UserError

Detector = Callable[[np.ndarray], "Face | None"]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """side: of the square, below: of its centre under the middle between the eyes; both in distances of the eyes."""

    side: float
    below: float


FFHQ = Geometry(side=4.0, below=0.11)
CELEBA = Geometry(side=128 / 38.3, below=(57 + 64 - 111.2) / 38.3)
GEOMETRIES = {"ffhq": FFHQ, "celeba": CELEBA}
OF_DATA = {"ffhq": "ffhq", "celebahq": "ffhq", "celeba": "celeba"}  # the geometry of data sets of faces


@dataclasses.dataclass(frozen=True)
class Face:
    """In pixels of the photo: the width of its box, and both eyes (x, y), the left one in the picture first; None where
    they are not seen."""

    width: float
    eyes: np.ndarray | None


def aligned(photo: np.ndarray, eyes: np.ndarray, geometry: Geometry, size: int) -> np.ndarray:
    """uint8 [h, w, c], eyes [2, 2] as (x, y) -> uint8 [size, size, c]; beyond its edge the photo is mirrored.

    Raises UserError where the eyes are one point or out of the photo.
    """
    from PIL import Image

    eyes = np.asarray(eyes, np.float64)
    height, width, channels = photo.shape
    along = eyes[1] - eyes[0]
    if not np.isfinite(eyes).all() or not np.hypot(*along) >= 1:
        raise UserError(f"Eyes at {eyes.tolist()} are no two points: give (x, y) of each, in pixels.")
    if (eyes < 0).any() or (eyes > (width, height)).any():
        raise UserError(f"Eyes at {eyes.tolist()} are out of the photo, which has {width} x {height} pixels.")
    down = np.array([-along[1], along[0]])
    half = geometry.side / 2 * np.stack([along, down])  # [2, (x, y)]
    centre = eyes.mean(0) + geometry.below * down
    fine = 2 * size
    if (reduced := int(geometry.side * np.hypot(*along)) // fine) > 1:  # antialiased
        photo = np.asarray(Image.fromarray(photo.squeeze(-1) if channels == 1 else photo).reduce(reduced))
        photo = photo.reshape(*photo.shape[:2], channels)
        centre, half = centre / reduced, half / reduced
    pad = int(np.ceil(np.abs(half).sum() + np.abs(centre - np.array(photo.shape[1::-1]) / 2).max()))
    photo = np.pad(photo, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric")
    corner = centre + pad - half.sum(0)
    steps = 2 * half / fine  # of a pixel of the crop to the right, and down
    picture = Image.fromarray(photo.squeeze(-1) if channels == 1 else photo)
    matrix = (steps[0, 0], steps[1, 0], corner[0], steps[0, 1], steps[1, 1], corner[1])
    crop = picture.transform((fine, fine), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(crop.resize((size, size), Image.Resampling.BOX)).reshape(size, size, channels)


def detector() -> Detector | None:
    """Finds the largest face of a photo; None without OpenCV 4."""
    try:
        from diffrep_jax.data import face_cascades
    except ImportError:
        return None
    return face_cascades.largest
