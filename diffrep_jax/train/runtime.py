"""The process around a run: JAX's compile cache, several hosts, and a polite end on SIGTERM."""

import os
import pathlib
import signal
import threading
from types import FrameType
from typing import Any

from diffrep_jax.errors import UserError
from diffrep_jax.train import heap


def set_up(multihost: bool = False) -> None:
    """Call once, before JAX is used: keeps memory, turns the persistent compile cache on, joins the other hosts.

    The cache lies in JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/diffrep_jax.
    """
    heap.keep()
    import jax

    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "diffrep_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if multihost:
        _join_hosts()


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    import jax

    return jax.process_index() == 0


def wait_for_all(name: str) -> None:
    """Until every process is here; `name` tells one such place from another."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


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
