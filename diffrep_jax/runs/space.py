"""Room for a run's checkpoints on its disk, looked at before training begins."""

import logging
import math
import os
import pathlib
import shutil

import jax

from diffrep_jax.runs import layout
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


def size_of(tree: PyTree) -> int:
    """The bytes of all arrays, or of ShapeDtypeStructs."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def warn_if_short(folder: str | os.PathLike[str], size: int, count: int) -> None:
    """Say so where a run's local disk has no room for `count` checkpoints of `size` bytes, those it has included."""
    place = layout.as_path(folder)
    if layout.in_object_storage(place):
        return
    path = pathlib.Path(os.fspath(place)).absolute()
    kept = path / layout.CHECKPOINTS
    there = sum(1 for child in kept.iterdir() if child.name.isdecimal()) if kept.is_dir() else 0
    try:
        free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.is_dir())).free
    except OSError:
        return  # a file system that does not say
    needed = size * max(count - there, 1)
    if free < needed:
        log.warning(
            "The disk of %s has %s free; the checkpoints to come need up to %s: make room, or use another --workdir.",
            path,
            _shown(free),
            _shown(needed),
        )


def _shown(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
