"""Where encoded images come from, one kind a file; `open_source` finds out what a path is."""

import functools
import logging
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from diffrep_jax.data.names import is_hidden, is_image_name, natural_order
from diffrep_jax.errors import UserError

__all__ = ["IndexOutOfRange", "Source", "check_index", "is_image_name", "natural_order", "open_source"]

log = logging.getLogger(__name__)


class Source(Protocol):
    """Images by their number; picklable, for any number of threads, and usable after a fork."""

    kind: ClassVar[str]

    @property
    def path(self) -> Path | None: ...

    @property
    def splits(self) -> Mapping[str, range]:
        """Those that the source itself has, empty for most."""
        ...

    def __len__(self) -> int: ...

    def key(self, index: int, /) -> str:
        """The name of the entry: a key, a path below the folder."""
        ...

    def __getitem__(self, index: int, /) -> bytes | np.ndarray:
        """An encoded image, or uint8 [h, w, c]. Raises BadEntry where it cannot be read."""
        ...

    def fingerprint(self) -> str:
        """What tells these images from others, also from others of the same names, wherever they lie: 64 hex digits.

        Of the pixels, or of keys and checksums, where these are at hand; else of keys, sizes and times of change.
        """
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
    """The images of an LMDB, an archive, a prepared TFDS data set or a folder, whichever `path` is or holds.

    In a folder these are looked for in turn: what has one of `names`, the only *.lmdb, the only TFDS data set, images
    at any depth, the only LMDB or archive (zip, tar, npz) at any depth. One image file is a folder of one image.
    Raises UserError where there is none, or more than one.
    """
    try:
        return _open_folder(path, names) if path.is_dir() else _open_file(path)
    except OSError as error:
        raise UserError(f"'{path}' cannot be read ({error.strerror}): give another path with --data_dir.") from error


def _open_file(path: Path) -> Source:
    from diffrep_jax.data.sources import folder, lmdb, npz, tar, zip

    if not path.is_file():
        return lmdb.LmdbSource(path)  # which says that it does not exist
    if is_image_name(path.name):
        return folder.FolderSource(path.parent, [path.name])
    if path.suffix in (".npz", ".npy"):
        return npz.NpzSource(path)
    if tar.is_tar(path.name):
        return tar.TarSource(path)
    return zip.ZipSource(path) if zip.is_zip(path) else lmdb.LmdbSource(path)


def _open_folder(path: Path, names: Sequence[str]) -> Source:
    from diffrep_jax.data.sources import folder, lmdb, tfds

    if (path / "data.mdb").is_file():
        return lmdb.LmdbSource(path)
    if tfds.is_prepared(path):
        return tfds.TfdsSource(path)
    for name in names:
        if (path / name).exists():
            return open_source(path / name)
    for kind, candidates in (("LMDB", sorted(path.glob("*.lmdb"))), ("TFDS data set", tfds.prepared_below(path))):
        if one := _only(candidates, kind, path, names):
            return open_source(one)
    below = folder.contents(path)
    if below.images:
        if below.others or below.archives:
            others = folder.count_by_suffix([*below.others, *map(str, below.archives)])
            _say_once(f"{len(below.images)} images in '{path}', beside {others}, not read as images.")
        return folder.FolderSource(path, below.images)
    zips = all(archive.suffix.lower() == ".zip" for archive in below.archives)
    for kind, candidates in (("LMDB", below.lmdbs), ("zip" if zips else "archive", below.archives)):
        if one := _only(candidates, kind, path, names):
            return open_source(one)
    looked_for = f"no {names[0]}, " if names else ""
    others = folder.count_by_suffix(below.others) or "no file"
    raise UserError(
        f"There is {looked_for}no LMDB, zip, tar, npz, TFDS data set or image at all in '{path}', which holds "
        f"{others}: give a folder that has one with --data_dir or DIFFREP_DATA."
    )


@functools.cache
def _say_once(line: str) -> None:
    """For the log: a command opens its data several times."""
    log.info("%s", line)


def _only(candidates: Sequence[Path], kind: str, folder: Path, names: Sequence[str]) -> Path | None:
    usual = [candidate for candidate in candidates if candidate.name in names]
    if len(usual) == 1:
        return usual[0]
    if len(candidates) > 1:
        listed = ", ".join(str(f.relative_to(folder)) for f in candidates[:9]) + (", ..." if candidates[9:] else "")
        not_there = f"no {names[0]}, " if names else ""
        raise UserError(
            f"There is {not_there}only {listed} in '{folder}': give the {kind} that is meant with --data_dir."
        )
    if candidates and names:
        log.warning(f"No {names[0]} in '{folder}'; reading the only {kind} there, {candidates[0].relative_to(folder)}.")
    return candidates[0] if candidates else None


def no_images(place: str, others: Sequence[str]) -> UserError:
    """The error for an archive without images, which says what it has instead."""
    from diffrep_jax.data.sources.folder import count_by_suffix

    has = count_by_suffix([name for name in others if not is_hidden(name)]) or "nothing"
    return UserError(f"{place} holds no images, but {has}: give one of JPEG, PNG or WebP files.")


def printable(name: str) -> str:
    """The name of a file with what is not UTF-8 written out, and without the "./" at its beginning."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    while text.startswith("./"):
        text = text[2:].lstrip("/")
    return text
