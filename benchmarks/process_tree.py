"""CPU time and memory of this process and of its workers; needs nothing but Linux, so that any environment has it."""

import multiprocessing
import os
import pathlib


def cpu_seconds() -> float:
    """User and system time until now of this process and of the child processes that are alive."""
    stats = [pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in _processes()]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def private_bytes() -> int:
    """Memory that this process and its children have to themselves, and shared memory; no files that are mapped."""
    pages = [pathlib.Path(f"/proc/{pid}/statm").read_text().split() for pid in _processes()]
    shared = sum(file.stat().st_blocks * 512 for file in pathlib.Path("/dev/shm").iterdir())
    return sum(int(resident) - int(mapped) for _, resident, mapped, *_ in pages) * os.sysconf("SC_PAGE_SIZE") + shared


def _processes() -> list[int]:
    children = [child.pid for child in multiprocessing.active_children()]
    return [os.getpid(), *(pid for pid in children if pid is not None)]
