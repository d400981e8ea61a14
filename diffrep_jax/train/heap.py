"""The process's memory on a CPU: kept once it was used, in huge pages, and touched before the first step needs it.

XLA's buffers on the CPU otherwise go back to the system after every step, and each step pays for a million page faults.
All this is for Linux with glibc; elsewhere, and where a GPU or TPU works, nothing is done.
"""

import ctypes
import importlib.util
import os
import platform
import sys
import threading

# Names of malloc.h and mman.h
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD = -8, -4, -1
_HUGE, _POPULATE_WRITE = 14, 23
_SLICE = 2**26  # bytes touched in one call, for which other threads may have to wait

_reserved = (0, 0)  # address and size of the heap's huge pages


def keep() -> None:
    """Keep what is freed, and let the heap grow into pages of 2 MiB. Call before JAX starts its threads.

    Nothing is taken before it is used.
    """
    global _reserved
    accelerator = any(map(importlib.util.find_spec, ("jax_cuda13_plugin", "jax_cuda12_plugin", "libtpu")))
    if "jax" in sys.modules or accelerator or platform.libc_ver()[0] != "glibc":
        return
    libc = _libc()
    for name, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
        libc.mallopt(name, value)
    page = os.sysconf("SC_PAGE_SIZE")
    size = os.sysconf("SC_PHYS_PAGES") // 2 * page
    if block := libc.malloc(size):
        _reserved = -(-block // page) * page, size - 2 * page
        libc.madvise(*_reserved, _HUGE)
        libc.free(block)  # the range stays the free end of the heap


def touch(size: int) -> None:
    """Have the system provide the heap's next `size` bytes, in the background, whether or not they are in use yet.

    The first touch of memory costs seconds a GB on a virtual machine; here it happens while the step compiles.
    """
    address, available = _reserved
    end = address + min(size, available)

    def run() -> None:
        for start in range(address, end, _SLICE):
            _libc().madvise(start, min(_SLICE, end - start), _POPULATE_WRITE)

    threading.Thread(target=run, daemon=True).start()


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
