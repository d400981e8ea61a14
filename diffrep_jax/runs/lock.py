"""One run, one writer: a lock in the run's folder that says who holds it, and that ends with the process."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator

from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout

NAME = ".lock"
ATTEMPTS = 10

_by_file: set[epath.Path] = set()  # what this process holds where the system knows no locks


@contextlib.contextmanager
def held(folder: str | os.PathLike[str], force: bool = False) -> Iterator[None]:
    """Hold the lock of a run's folder while it is trained, as `holding`; `force` takes it from whoever holds it."""
    path = layout.made(folder) / NAME
    if force:
        path.unlink(missing_ok=True)
    remedy = "use another --workdir, or if it is gone add --force-unlock"
    with holding(path, f"{path.parent} is being trained", remedy):
        yield


@contextlib.contextmanager
def holding(path: epath.Path, doing: str, remedy: str) -> Iterator[None]:
    """Hold a lock; UserError, with what is done, by which process, host and since when, where another one does.

    The system's lock on the file ends with its process, killed ones too. Where the file system has none (object
    storage, some network mounts), what the file says counts.
    """
    try:
        file = None if layout.in_object_storage(path) else _locked(path)
        if file is None:
            _refuse_if_held(path)
    except _Held:
        raise UserError(f"{doing} by {_who(path)}; wait for it, {remedy}.") from None
    if file is None:
        layout.write_json(path, _holder())
        _by_file.add(path)
    else:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_holder()).encode(), 0)
    try:
        yield
    finally:
        _by_file.discard(path)
        if _is_ours(path, file):
            path.unlink(missing_ok=True)
        if file is not None:
            os.close(file)


def let_go() -> None:
    """For a process that ends at once: give back what would not end with it."""
    for path in tuple(_by_file):
        if _is_ours(path, None):
            path.unlink(missing_ok=True)


class _Held(Exception):
    """Another process has the lock."""


def _locked(path: epath.Path) -> int | None:
    """The open file with the system's lock on it; None where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return None
    for _ in range(ATTEMPTS):
        try:
            file = os.open(os.fspath(path), os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            place = f"{path.parent} ({error.strerror})"
            raise UserError(f"Nothing can be written in {place}; use another --workdir.") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise _Held from None
        except OSError:
            os.close(file)
            return None
        if _is_ours(path, file):
            return file
        os.close(file)  # who held it has removed it in between
    return None


def _is_ours(path: epath.Path, file: int | None) -> bool:
    """Whether what lies there is what this process has written: somebody may have taken the lock from it."""
    if file is None:
        holder = _read(path)
        return [holder.get(name) for name in ("host", "process")] == [platform.node(), os.getpid()]
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError:
        return False


def _refuse_if_held(path: epath.Path) -> None:
    if not path.is_file():
        return
    holder = _read(path)
    same_host, process = holder.get("host") == platform.node(), holder.get("process")
    # One of this very number is gone: a container that starts again gives the same.
    if not same_host or (process != os.getpid() and _is_alive(process)):
        raise _Held


def _who(path: epath.Path) -> str:
    unknown = {"process": "?", "host": "an unknown host", "since": "?"}
    return "process {process} on {host} since {since}".format(**unknown | _read(path))


def _read(path: epath.Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _holder() -> dict[str, object]:
    return {"host": platform.node(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _is_alive(process: object) -> bool:
    try:
        os.kill(int(str(process)), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True
