"""The process around a run: memory, JAX's compile cache, several hosts."""

import os
import pathlib

from diffrep_jax.errors import UserError
from diffrep_jax.train import heap

HOSTS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def set_up(multihost: bool = False) -> None:
    """Call once, before JAX is used: keeps memory, turns the persistent compile cache on, joins the other hosts.

    The cache lies in JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/diffrep_jax.
    """
    heap.keep()
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "diffrep_jax"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if multihost:
        _join_hosts()


def _join_hosts() -> None:
    """As the cluster says (TPU pods, Slurm, Open MPI, Kubernetes), or as the environment variables of HOSTS do."""
    import jax

    given = {name: os.environ[name] for name in HOSTS if os.environ.get(name)}
    remedy = f"on hosts of your own set all of {', '.join(HOSTS)} (host:port, how many, which one from 0 on)."
    if given and len(given) < len(HOSTS):
        missing = ", ".join(name for name in HOSTS if name not in given)
        raise UserError(f"--multihost: {', '.join(given)} is set and {missing} is not; {remedy}")
    try:
        if given:
            address, count, number = (given[name] for name in HOSTS)
            jax.distributed.initialize(address, int(count), int(number))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--multihost joined no cluster ({error}); {remedy}") from None
