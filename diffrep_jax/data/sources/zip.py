"""A source that is a zip of image files, read without unpacking it."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fork_safe_lock import ForkSafeLock
from diffrep_jax.data.sources import check_index, is_image_name, natural_order
from diffrep_jax.errors import UserError


def is_zip(path: Path) -> bool:
    """Whether `path` is a zip, or is named as one: a broken one is to be told as such."""
    return path.is_file() and (path.suffix.lower() == ".zip" or zipfile.is_zipfile(path))


class ZipSource:
    """The images in a zip, in the natural order of their paths (img2 before img10).

    The open file is not pickled, and not used by another process than that which opened it.
    """

    kind: ClassVar[str] = "zip"
    splits: ClassVar[dict[str, range]] = {}

    def __init__(self, path: Path):
        self.path = path
        self._open()
        names = [info.filename for info in self._zip.infolist() if not info.is_dir() and is_image_name(info.filename)]
        if not names:
            raise UserError(f"The zip '{path}' holds no images: give one of JPEG, PNG or WebP files.")
        self._names = tuple(sorted(names, key=natural_order))

    def _open(self) -> None:
        try:
            # Of a file that it opened itself, ZipFile counts the readers, which goes wrong with many threads.
            self._zip, self._pid = zipfile.ZipFile(self.path.open("rb")), os.getpid()
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"'{self.path}' does not open as a zip ({error}): copy it again.") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_names": self._names, "_zip": None, "_pid": None}

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
            return self._zip.read(name)
        # A password raises RuntimeError, an unknown method of compression NotImplementedError.
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError) as error:
            raise BadEntry(f"'{name}' in '{self.path}' cannot be read ({error}): pack the zip again.") from error


_lock = ForkSafeLock()
