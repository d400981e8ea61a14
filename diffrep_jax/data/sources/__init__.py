"""Where encoded images come from, one kind a file; `open_source` finds out what a path is."""

import logging
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from diffrep_jax.errors import UserError


class Source(Protocol):
    """Images by their number; picklable, for any number of threads, and usable after a fork."""

    kind: ClassVar[str]
    path: Path | None
    splits: Mapping[str, range]  # those that the source itself has, empty for most

    def __len__(self) -> int: ...

    def key(self, index: int, /) -> str:
        """The name of the entry: a key, a path below the folder."""
        ...

    def __getitem__(self, index: int, /) -> bytes | np.ndarray:
        """An encoded image, or uint8 [h, w, c]. Raises BadEntry where it cannot be read."""
        ...


class IndexOutOfRange(UserError, IndexError):
    """Also an IndexError, so that `for example in dataset` ends where the data end."""


def check_index(index: int, count: int, place: str) -> int:
    """`index` as an int in [0, count). Negative ones are refused: they would reach out of a split."""
    index = operator.index(index)
    if not 0 <= index < count:
        raise IndexOutOfRange(f"Index {index} is out of range for {place}: use 0 to {count - 1}.")
    return index


def open_source(path: Path, names: Sequence[str] = ()) -> Source:
    """The images of an LMDB, a zip, a prepared TFDS data set or a folder of images, whichever `path` is or holds.

    In a folder these are looked for in turn: what has one of `names`, the only *.lmdb, the only TFDS data set,
    images at any depth, the only *.zip. Raises UserError where there is none, or more than one.
    """
    from diffrep_jax.data.sources import folder, lmdb, tfds, zip

    if not path.is_dir():
        return zip.ZipSource(path) if zip.is_zip(path) else lmdb.LmdbSource(path)
    if (path / "data.mdb").is_file():
        return lmdb.LmdbSource(path)
    if tfds.is_prepared(path):
        return tfds.TfdsSource(path)
    for name in names:
        if (path / name).exists():
            return open_source(path / name)
    for kind, found in (("LMDB", sorted(path.glob("*.lmdb"))), ("TFDS data set", tfds.prepared_below(path))):
        if one := _only(found, kind, path, names):
            return open_source(one)
    images = folder.list_images(path)
    if images:
        return folder.FolderSource(path, images)
    if one := _only(sorted(path.glob("*.zip")), "zip", path, names):
        return open_source(one)
    looked_for = f"no {names[0]}, " if names else ""
    raise UserError(
        f"There is {looked_for}no LMDB, zip, TFDS data set or image at all in '{path}': "
        "give a folder that has one with --data_dir or DIFFREP_DATA."
    )


def _only(found: Sequence[Path], kind: str, folder: Path, names: Sequence[str]) -> Path | None:
    if len(found) > 1:
        listed = ", ".join(str(f.relative_to(folder)) for f in found)
        usual = f"no {names[0]}, " if names else ""
        raise UserError(f"There is {usual}only {listed} in '{folder}': give the {kind} that is meant with --data_dir.")
    if found and names:
        logging.getLogger(__name__).warning(
            f"No {names[0]} in '{folder}'; reading the only {kind} there, {found[0].relative_to(folder)}."
        )
    return found[0] if found else None


def natural_order(name: str) -> tuple:
    """The sorting key by which img2 comes before img10, in any mixture of letters and digits."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), name


IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
)


def is_image_name(name: str) -> bool:
    """Whether a path below a folder or in a zip names an image; hidden files and folders are no images."""
    parts = name.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES
