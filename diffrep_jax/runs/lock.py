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


@contextlib.contextmanager
def held(folder: str | os.PathLike[str], force: bool = False) -> Iterator[None]:
    """Hold the folder's lock; UserError, with host, process and since when, where another process does.

    The system's lock on the file ends with its process, killed ones too. Where the file system has none (object
    storage, some network mounts), what the file says counts. `force` takes the lock from whoever holds it.
    """
    path = layout.made(folder) / NAME
    if force:
        path.unlink(missing_ok=True)
    file = None if layout.in_object_storage(path) else _locked(path)
    if file is None:
        _refuse_if_held(path)
        layout.write_json(path, _holder())
    else:
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_holder()).encode(), 0)
    try:
        yield
    finally:
        if _is_ours(path, file):
            path.unlink(missing_ok=True)
        if file is not None:
            os.close(file)


def _locked(path: epath.Path) -> int | None:
    """The open file with the system's lock on it; None where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return None
    try:
        file = os.open(os.fspath(path), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"Nothing can be written in {path.parent} ({error.strerror}); use another --workdir.") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise _held_by(path) from None
    except OSError:
        os.close(file)
        return None
    return file


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
    same_host = holder.get("host") == platform.node()
    if not same_host or _is_alive(holder.get("process")):
        raise _held_by(path)


def _held_by(path: epath.Path) -> UserError:
    holder = _read(path)
    who = "process {process} on {host} since {since}".format(
        **{"process": "?", "host": "an unknown host", "since": "?"} | holder
    )
    return UserError(
        f"{path.parent} is being trained by {who}; wait for it, use another --workdir, or if it is gone add "
        "--force-unlock."
    )


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
