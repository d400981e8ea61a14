"""A file that is read at given places: by any number of threads, after a fork, and pickled by its path."""

import os
import weakref
from pathlib import Path
from typing import Any

from diffrep_jax.data.fingerprint import digest
from diffrep_jax.errors import UserError


class PositionalFile:
    """Raises OSError where it does not open. Nothing is mapped into memory, so a file cut short kills no process."""

    def __init__(self, path: Path):
        self.path = path
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        self.size, self._modified = status.st_size, status.st_mtime_ns

    def fingerprint(self) -> str:
        """Of its size and time of change."""
        return digest(self.size, self._modified)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fingerprint": self.fingerprint()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path = state["path"]
        self._open()
        if self.fingerprint() != state["fingerprint"]:
            raise changed(self.path)

    def read(self, size: int, start: int) -> bytes:
        """Raises ValueError where the file has no such bytes, OSError where it cannot be read."""
        if not 0 <= start <= start + size <= self.size:
            raise ValueError(f"bytes {start:,} to {start + size:,} of a file of {self.size:,}")
        parts = [os.pread(self._descriptor, size, start)]
        while (missing := size - sum(map(len, parts))) > 0:  # one call gives 2 GB at most
            part = os.pread(self._descriptor, missing, start + size - missing)
            if not part:
                raise ValueError(f"the file ends before byte {start + size:,}")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def changed(path: Path) -> UserError:
    """The error for a file whose list of entries is no longer that which was read."""
    return UserError(f"'{path}' was changed while it was being read: run the command again.")
