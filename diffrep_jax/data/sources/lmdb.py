"""A source that is an LMDB of encoded images, in the layout of the DiffAE project."""

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fork_safe_lock import ForkSafeLock
from diffrep_jax.data.sources import check_index
from diffrep_jax.errors import UserError

_LENGTH_KEY = b"length"
_ENTRY_KEY = re.compile(rb"(.*-)(\d+)", re.DOTALL)  # <prefix>-<digits>


class LmdbSource:
    """The encoded images of an LMDB with keys `<prefix>-<digits>`, in the order of their numbers.

    path: a directory with data.mdb, or a single-file LMDB. Prefix, digits and first number come from its
    first key, the count from the entry `length` (text), else from the number of entries; no scan.
    It keeps no handle (see `_environment`), so it can be pickled and used after a fork.
    """

    kind: ClassVar[str] = "lmdb"
    splits: ClassVar[dict[str, range]] = {}

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        data_file = self.path / "data.mdb" if self.path.is_dir() else self.path
        if not data_file.is_file():
            what = "is not an LMDB: it has no data.mdb" if self.path.is_dir() else "does not exist"
            raise UserError(f"'{self.path}' {what}. Name a directory with data.mdb in it, or an LMDB file.")
        self._file = os.path.realpath(data_file)
        self._read_layout()

    def _read_layout(self) -> None:
        environment = _environment(self._file, at_start=True)
        _refuse_truncated(environment, self._file)
        with environment.begin() as txn:
            keys = _first_keys(txn, limit=3)
            if not keys:
                raise UserError(f"The LMDB '{self.path}' is empty: write it again.")
            layout = _ENTRY_KEY.fullmatch(keys[0])
            if not layout:
                found = ", ".join(repr(_text(k)) for k in keys)
                raise UserError(
                    f"The LMDB '{self.path}' has keys {found}, not '<prefix>-<digits>' such as '256-00000': "
                    "write it again with such keys."
                )
            prefix, digits = layout.groups()
            self._prefix, self._digits, self._first = prefix, len(digits), int(digits)
            self._count = self._read_count(txn.get(_LENGTH_KEY), environment.stat()["entries"])
            # One look-up that finds a wrong `length`, and gaps or a second prefix where there is none.
            last = self._raw_key(self._count - 1)
            if not txn.cursor().set_key(last):
                raise UserError(
                    f"The LMDB '{self.path}' says that it has {self._count} images, but has no key "
                    f"'{_text(last)}' (its first is '{_text(keys[0])}'): it is incomplete or its 'length' is "
                    "wrong; write it again."
                )

    def _read_count(self, length: bytes | None, entries: int) -> int:
        if length is None:
            return entries
        if not length.isdigit() or int(length) < 1:
            raise UserError(
                f"The LMDB '{self.path}' has the text {_text(length)!r} under 'length': "
                "write the number of its images there."
            )
        return int(length)

    def _raw_key(self, index: int) -> bytes:
        return self._prefix + str(self._first + index).zfill(self._digits).encode()

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> str:
        return _text(self._raw_key(check_index(index, len(self), str(self.path))))

    def __getitem__(self, index: int) -> bytes:
        key = self._raw_key(check_index(index, len(self), str(self.path)))
        with _environment(self._file).begin() as txn:
            value = txn.get(key)
        if value is None:
            raise BadEntry(f"The LMDB '{self.path}' has no key '{_text(key)}': it is incomplete; write it again.")
        return value


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _first_keys(txn, limit: int) -> list[bytes]:
    """The first keys in the file's order, without `length`; a key such as 'z-0' comes after it."""
    keys = []
    for key in txn.cursor().iternext(keys=True, values=False):
        if key != _LENGTH_KEY:
            keys.append(key)
        if len(keys) == limit:
            break
    return keys


def _refuse_truncated(environment, file: str) -> None:
    """Reading past the end of a memory map kills the process with SIGBUS, so look at the size first.

    A file from which the last entries were deleted may be short and whole: hence the second remedy.
    """
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = os.path.getsize(file)
    if size < needed:
        raise UserError(
            f"'{file}' is cut short: {size} bytes of {needed}. Copy it again, "
            "or, if entries were deleted from it, compact it with 'mdb_copy -c'."
        )


# lmdb refuses to open a file twice in a process (train and eval data), also in a fork of one that holds it.
# So each process has one environment for each file, kept here and never in an object that may be pickled.
_environments: dict[tuple[int, str], tuple[tuple, Any]] = {}  # (pid, real path): (inode, environment)
_lock = ForkSafeLock()


def _environment(file: str, at_start: bool = False) -> Any:
    """This process's environment of the LMDB data file; at_start: opened anew if the file was replaced."""
    pid = os.getpid()
    held = _environments.get((pid, file))
    if held and not at_start:
        return held[1]
    with _lock:
        for inherited in [key for key in _environments if key[0] != pid]:
            # This process is a fork. Without lmdb's lock file, closing here does not touch the parent.
            _environments.pop(inherited)[1].close()
        held, inode = _environments.get((pid, file)), _inode(file)
        if held and held[0] != inode:
            del _environments[pid, file]  # the file was replaced; letting go of the old environment closes it
            held = None
        if held is None:
            held = _environments[pid, file] = inode, _open(file)
    return held[1]


def _inode(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except OSError as error:
        raise UserError(f"The LMDB file '{file}' cannot be read ({error.strerror}): is its disk mounted?") from error
    return status.st_dev, status.st_ino


def _open(file: str) -> Any:
    import lmdb

    try:
        # Always as a single file: data.mdb in a directory is one. Nothing is written, not even a lock file.
        return lmdb.open(
            file, subdir=False, readonly=True, lock=False, readahead=False, meminit=False, max_spare_txns=16
        )
    except lmdb.Error as error:
        if "already open" in str(error):
            raise UserError(
                f"'{file}' is open elsewhere in this process: close that lmdb environment first."
            ) from error
        raise UserError(f"'{file}' does not open as an LMDB ({error}): is it one, complete and readable?") from error
