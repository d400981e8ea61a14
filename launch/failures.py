"""What the machine refuses, such as a full disk or too little memory, as one line that names the place and the remedy.

Libraries raise it in threads and worker processes, and wrapped in other exceptions: causes, contexts and texts are
looked through.
"""

import errno
import logging
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator

from diffrep_jax import paths
from diffrep_jax.errors import UserError

log = logging.getLogger(__name__)

REFUSALS = {
    errno.ENOSPC: ("no space is left on the disk", "make room, or use a folder on another disk"),
    errno.EDQUOT: ("the quota of this disk is used up", "make room, or use a folder on another disk"),
    errno.EFBIG: ("the file would be larger than allowed", "raise the limit (ulimit -f), or use another file system"),
    errno.EROFS: ("the file system is read-only", "use a folder that can be written"),
    errno.EACCES: ("permission denied", "change the permissions, or use another folder"),
    errno.EPERM: ("the operation is not permitted", "change the permissions, or use another folder"),
    errno.EIO: ("the disk or its network mount fails (input/output error)", "check it, or use another one"),
    errno.ESTALE: ("the network mount has lost it", "mount it again"),
    errno.ENOENT: ("there is no such file or folder", "was it removed or renamed? Restore it"),
    errno.ENOTDIR: ("a file is where a folder should be", "use another folder"),
    errno.EISDIR: ("a folder is where a file should be", "use another name"),
    errno.EMFILE: ("too many files are open", "raise the limit (ulimit -n), or lower config.data.workers"),
    errno.ENFILE: ("too many files are open on this machine", "close some, or lower config.data.workers"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "use a shorter one"),
    errno.EAGAIN: ("the system has no more processes or threads", "raise the limit (ulimit -u)"),
    errno.EPIPE: ("nobody reads it any more", "start again"),
}
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
SHARED_MEMORY = "/dev/shm"
LITTLE = 2**26  # bytes of it that are not enough for worker processes

# Errno as Python, TensorStore, absl and Rust write it.
NUMBER = re.compile(r"\[Errno (\d+)\]|os_error_code='(\d+)'|\b(?:OS|os) error (\d+)")
PATH = re.compile(r"""["'](/[^"'\n]+)["']""")
WORKER = re.compile(r"exit code -(\d+)")
MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|CUDA_ERROR_OUT_OF_MEMORY")
OUT_OF_SHARED_MEMORY = (
    f"the worker processes have too little shared memory ({SHARED_MEMORY}); use config.data.worker_kind=thread, or "
    "give a container more (--shm-size=8g)."
)


def quiet() -> None:
    """No traces of what libraries leave in threads and destructors: what matters of it is raised as well."""
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda thrown: log.debug("In a thread: %s", thrown.exc_value)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def explained(error: BaseException, workdir: str | None, task: str) -> str | None:
    """The line; None for what is nobody's mistake but the program's."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, UserError):
            return str(link)
    if workdir is not None and (gone := _gone(chain, workdir)):
        return gone
    for link in chain:
        if (line := _refused(link, workdir) or _worker(link)) is not None:
            return line + (" The last complete checkpoint stays." if task == "train" else "")
    if any(isinstance(link, MemoryError) or MEMORY.search(str(link)) for link in chain):
        return _out_of_memory(task)
    for link in chain:
        if isinstance(link, ImportError) and workdir and paths.is_address(workdir):
            return f"--workdir={workdir} needs a library that is missing ({link}): pip install 'diffrep_jax[gcs]'."
        if isinstance(link, UnicodeEncodeError) and link.reason == "surrogates not allowed":
            return f"The name {link.object[:200]!a} has bytes that are no UTF-8: rename the file."
        if isinstance(link, ValueError) and "embedded null" in str(link):
            return "A path has a NUL character in it; give one without."
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it came from or that it groups, each once."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        context = None if link.__suppress_context__ else link.__context__
        grouped = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        waiting += [other for other in (link.__cause__, context, *grouped) if other is not None]


def _gone(chain: list[BaseException], workdir: str) -> str | None:
    """Where a file of the run is missing since the whole run is."""
    from diffrep_jax.runs import layout

    missing = [link for link in chain if isinstance(link, FileNotFoundError) or "NOT_FOUND" in str(link)]
    if not missing or os.path.isfile(os.path.join(workdir, layout.CONFIG)):
        return None
    paths = [getattr(link, "filename", None) or _stated(link) for link in missing]
    if not any(path and _inside(path, workdir) for path in paths):
        return None
    return f"{workdir} was removed or renamed while it was written; restore it, or start again in a new --workdir."


def _stated(error: BaseException) -> str | None:
    """The first path that its text has in quotes."""
    quoted = PATH.search(str(error))
    return quoted.group(1) if quoted else None


def _inside(path: str | bytes, folder: str) -> bool:
    return os.path.abspath(os.fsdecode(path)).startswith(os.path.abspath(folder))


def _refused(error: BaseException, workdir: str | None) -> str | None:
    """Of an error of the system's, or one whose text has the number of such a one."""
    text = str(error)
    number, path = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
    if number is None and (stated := NUMBER.search(text)):
        number = int(next(filter(None, stated.groups())))
    if number is None or not isinstance(number, int) or number <= 0:
        return None
    if path is None or isinstance(path, int):
        path = _stated(error)
    path = None if path is None else os.fsdecode(path)
    if number == errno.ENOSPC and _is_shared_memory(path, workdir or "."):
        return OUT_OF_SHARED_MEMORY[0].upper() + OUT_OF_SHARED_MEMORY[1:]
    path = path or workdir or "A file"
    if workdir and _inside(path, workdir) and number in OF_THE_DISK:
        path = workdir
    reason, remedy = REFUSALS.get(number, (os.strerror(number), "see to it, or use another folder"))
    return f"{path}: {reason}; {remedy}."


def _is_shared_memory(path: str | None, workdir: str) -> bool:
    """Whether what is full is the memory that processes share, as a container's usual 64 MB soon are."""
    if path is not None:
        return path.startswith((SHARED_MEMORY, "/psm_", "/sem.", "/mp-"))
    free = [shutil.disk_usage(place).free if os.path.isdir(place) else LITTLE for place in (SHARED_MEMORY, workdir)]
    return free[0] < LITTLE <= free[1]


def _worker(error: BaseException) -> str | None:
    """Of a worker process that ended by a signal: SIGBUS where shared memory is full, SIGKILL where memory is."""
    if not (ended := WORKER.search(str(error))):
        return None
    if ended.group(1) == "7":
        return f"A worker process was ended by a bus error: {OUT_OF_SHARED_MEMORY}"
    return (
        f"A worker process was ended by signal {ended.group(1)}, 9 where memory runs out; lower config.data.workers, "
        "or use config.data.worker_kind=thread."
    )


def _out_of_memory(task: str) -> str:
    if task == "train":
        return (
            "Out of memory. Compute less at a time (config.train.microbatch_size, a divisor of batch_size), recompute "
            "activations (config.method.remat=True), or split the state over more devices (config.mesh.fsdp). The "
            "last complete checkpoint stays."
        )
    return f"Out of memory. Lower the batch_size of config.tasks.{task}, or use a device with more memory."
