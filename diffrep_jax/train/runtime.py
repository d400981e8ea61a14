"""The process around a run: JAX's compile cache, several hosts, and a polite end on SIGTERM."""

import ctypes
import importlib.util
import os
import pathlib
import platform
import signal
import sys
import threading
from types import FrameType
from typing import Any

from diffrep_jax.errors import UserError


def set_up(multihost: bool = False) -> None:
    """Call once, before JAX is used: keeps memory, turns the persistent compile cache on, joins the other hosts.

    The cache lies in JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/diffrep_jax.
    """
    _keep_memory()
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "diffrep_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if multihost:
        _join_hosts()


def _keep_memory() -> None:
    """Tell glibc to keep what is freed: XLA's buffers on the CPU otherwise go back to the system after every step,
    and each step pays for a million page faults. Only before JAX starts its threads; skipped where a GPU or TPU works.
    """
    accelerator = any(map(importlib.util.find_spec, ("jax_cuda13_plugin", "jax_cuda12_plugin", "libtpu")))
    if "jax" in sys.modules or accelerator or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    arena_max, mmap_max, trim_threshold = -8, -4, -1  # the names of malloc.h
    libc.mallopt(arena_max, 1)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, -1)
    _ask_for_huge_pages(libc)


def _ask_for_huge_pages(libc: ctypes.CDLL) -> None:
    """Let the heap grow into pages of 2 MiB: one fault instead of 512. Nothing is taken before it is used."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page, huge = os.sysconf("SC_PAGE_SIZE"), 14  # MADV_HUGEPAGE
    size = os.sysconf("SC_PHYS_PAGES") // 2 * page
    if block := libc.malloc(size):
        libc.madvise(-(-block // page) * page, size - 2 * page, huge)
        libc.free(block)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    import jax

    return jax.process_index() == 0


def _join_hosts() -> None:
    """As the cluster says (TPU pods, Slurm, Open MPI, Kubernetes), or as these environment variables do."""
    import jax

    numbers = [int(os.environ[name]) for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID") if name in os.environ]
    try:
        jax.distributed.initialize(None, *numbers)
    except ValueError as error:
        raise UserError(
            f"--multihost found no cluster ({error}); on hosts of your own set JAX_COORDINATOR_ADDRESS=host:port, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID."
        ) from None


class StopSignal:
    """Inside the context, notes SIGTERM (a cluster's preemption) instead of dying, so that the loop can save."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopSignal":
        self._handles = threading.current_thread() is threading.main_thread()  # Python allows no other
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
