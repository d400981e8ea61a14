"""A source that is a folder of image files, at any depth; and what else lies below a folder."""

import collections
import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fingerprint import of_files
from diffrep_jax.data.names import IMAGE_SUFFIXES, is_hidden, natural_order, suffix
from diffrep_jax.data.sources import check_index, printable
from diffrep_jax.data.sources.tar import is_tar

log = logging.getLogger(__name__)


class FolderSource:
    """The image files below `path`, in the natural order of their paths (img2 before img10).

    names: their paths below `path`, as `contents` gives them.
    """

    kind: ClassVar[str] = "folder"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: Path, names: Sequence[str]):
        self.path = path
        self._names = tuple(names)

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return printable(self._names[check_index(index, len(self), str(self.path))])

    def __getitem__(self, index: int) -> bytes:
        key = self.key(index)
        try:
            with open(self.path / self._names[index], "rb") as file:
                limits.check_bytes(os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise BadEntry(f"The file '{self.path}/{key}' cannot be read ({error.strerror}): put it back.") from error
        except ValueError as error:
            raise BadEntry(f"The file '{self.path}/{key}' cannot be read: {error}; scale it down.") from error

    def fingerprint(self) -> str:
        return of_files(self.path, self._names)


@dataclasses.dataclass
class Contents:
    """What lies below a folder, in natural order: paths of images below it, LMDBs, archives, names of other files."""

    images: list[str] = dataclasses.field(default_factory=list)
    lmdbs: list[Path] = dataclasses.field(default_factory=list)
    archives: list[Path] = dataclasses.field(default_factory=list)
    others: list[str] = dataclasses.field(default_factory=list)


def contents(path: Path) -> Contents:
    """Links to folders are followed, each folder once; hidden files and folders are left out."""
    below = Contents()
    entered = set()
    for folder, subfolders, files in os.walk(path, followlinks=True, onerror=_not_entered):
        if (identity := os.path.realpath(folder)) in entered:
            subfolders.clear()
            continue
        entered.add(identity)
        if folder != str(path) and (folder.endswith(".lmdb") or "data.mdb" in files):
            below.lmdbs.append(Path(folder))
            subfolders.clear()
            continue
        prefix = "" if folder == str(path) else f"{Path(folder).relative_to(path).as_posix()}/"
        for file in files:
            _sort_in(below, prefix, file, path)
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
    for field in (below.images, below.lmdbs, below.archives):
        field.sort(key=lambda name: natural_order(str(name)))
    return below


def _sort_in(below: Contents, prefix: str, file: str, path: Path) -> None:
    name, lower = prefix + file, file.lower()
    if is_hidden(file):
        return
    if suffix(file) in IMAGE_SUFFIXES:
        below.images.append(name)
    elif lower.endswith((".lmdb", ".mdb")) and not lower.endswith("lock.mdb"):
        below.lmdbs.append(path / name)
    elif lower.endswith((".zip", ".npz", ".npy")) or is_tar(file):
        below.archives.append(path / name)
    else:
        below.others.append(name)


def _not_entered(error: OSError) -> None:
    log.warning("The folder '%s' is left out: it cannot be read (%s).", error.filename, error.strerror)


def count_by_suffix(names: Sequence[str]) -> str:
    """'3 .txt, 1 .heic', the most common ones first."""
    counts = collections.Counter(os.path.splitext(name)[1].lower() or "without suffix" for name in names)
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
    listed = ", ".join(f"{count:,} {suffix}" for suffix, count in most)
    return listed + (", ..." if len(counts) > 5 else "")
