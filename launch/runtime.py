"""The process around a run: memory, JAX's compile cache, several hosts."""

import os
import pathlib

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
