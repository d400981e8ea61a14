"""Whether photos are framed as a model has learned images: what there is to say before it is shown a whole scene."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np

from diffrep_jax.data import faces
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
from diffrep_jax.data.sources import Source

log = logging.getLogger(__name__)

SQUARE = 1.02  # long side / short side up to which a photo counts as cropped
SMALL = 0.35  # of the short side: a face below this is none that FFHQ's or CelebA's crop would give
LOOKED_AT = 16  # photos
PAGE = "docs/data.md"


def warn(photos: Iterable[tuple[str, bytes | np.ndarray]], learned: str) -> list[str]:
    """Log one line where photos, as (name, content), are not framed as the data set `learned`; also returned.

    Faces are looked for where OpenCV 4 is installed, and the data set is one of faces.
    """
    find = faces.detector() if learned in faces.OF_DATA else None
    uneven, none, small, count = [], [], [], 0
    for name, content in photos:
        if count == LOOKED_AT:
            break
        try:
            photo = content if isinstance(content, np.ndarray) else decode(content, 3, name)
        except BadEntry:  # the task says so
            continue
        count += 1
        height, width = photo.shape[:2]
        if max(height, width) > SQUARE * min(height, width):
            uneven.append(f"{name} ({width} x {height})")
        if find is not None and (face := find(photo)) is None:
            none.append(name)
        elif find is not None and face is not None and face.width < SMALL * min(height, width):
            small.append(name)
    lines = [
        f"{len(names)} of {count} photos {what}, such as {names[0]}{remedy}"
        for names, what, remedy in (
            (uneven, "are not square", f": only the square in the middle is used. {_remedy(learned)}"),
            (small, "have a small face", f". {_remedy(learned)}"),
            (none, "show no face from the front that is seen by a simple detector", f". See {PAGE}."),
        )
        if names
    ]
    for line in lines:
        log.warning("%s", line)
    return lines


def named(source: Source) -> Iterator[tuple[str, bytes | np.ndarray]]:
    """(name, content) of the images of a source that can be read."""
    for entry in range(len(source)):
        try:
            yield source.key(entry), source[entry]
        except BadEntry:
            continue


def _remedy(learned: str) -> str:
    if learned in faces.OF_DATA:
        return f"The model has learned faces in a crop of their own: --task=align makes it, see {PAGE}."
    return f"Crop them as the images of '{learned}' are."
