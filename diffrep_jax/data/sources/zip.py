"""A source that is a zip of image files, read without unpacking it."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fingerprint import digest
from diffrep_jax.data.fork_safe_lock import ForkSafeLock
from diffrep_jax.data.names import is_image_name, natural_order
from diffrep_jax.data.sources import check_index, no_images, printable
from diffrep_jax.data.sources._positional import changed
from diffrep_jax.errors import UserError


def is_zip(path: Path) -> bool:
    """Whether `path` is a zip, or is named as one, so that the error for a broken one says so."""
    if path.suffix.lower() == ".zip":
        return path.is_file()
    try:
        return path.is_file() and zipfile.is_zipfile(path)
    except Exception:  # of damaged numbers at its end
        return False


class ZipSource:
    """The images in a zip, in the natural order of their paths (img2 before img10).

    The open file is not pickled, and not used by another process than that which opened it.
    """

    kind: ClassVar[str] = "zip"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: Path):
        self.path = path
        self._open()
        # By their position, since a zip may have a name twice. Names are theirs without "./", as some programs pack.
        members = [(printable(info.filename), i) for i, info in enumerate(self._zip.infolist()) if not info.is_dir()]
        images = sorted((m for m in members if is_image_name(m[0])), key=lambda m: natural_order(m[0]))
        if not images:
            raise no_images(f"The zip '{path}'", [name for name, _ in members])
        self._names, self._positions = (tuple(column) for column in zip(*images, strict=True))

    def _open(self) -> None:
        try:
            # Of a file that it opened itself, ZipFile counts the readers, which goes wrong with many threads.
            opened = zipfile.ZipFile(self.path.open("rb"))
        except Exception as error:  # zipfile's own, and those of damaged numbers and names
            raise UserError(f"'{self.path}' does not open as a zip ({error}): copy it again.") from error
        # Of all that it lists: the positions that are kept are of this list alone.
        fingerprint = digest(*((m.filename, m.file_size, m.CRC) for m in opened.infolist()))
        if getattr(self, "_fingerprint", fingerprint) != fingerprint:
            raise changed(self.path)
        self._zip, self._pid, self._fingerprint = opened, os.getpid(), fingerprint

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_zip": None, "_pid": None}

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return self._names[check_index(index, len(self), str(self.path))]

    def __getitem__(self, index: int) -> bytes:
        name = self.key(index)
        if self._pid != os.getpid():
            with _lock:
                if self._pid != os.getpid():
                    self._open()
        try:
            info = self._zip.infolist()[self._positions[index]]
            limits.check_bytes(info.file_size)  # no more than that is unpacked
            return self._zip.read(info)
        # Of damage, of a password, of a method of compression that is not known: zlib's, lzma's, zipfile's own.
        except Exception as error:
            raise BadEntry(f"'{name}' in '{self.path}' cannot be read ({error}): pack the zip again.") from error

    def fingerprint(self) -> str:
        """Of the names, sizes and checksums that the zip lists."""
        return self._fingerprint


_lock = ForkSafeLock()
