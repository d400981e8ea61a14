"""The process around a run: memory, JAX's compile cache, several hosts."""

import os
import pathlib
import sys
import traceback
from collections.abc import Callable

from diffrep_jax import peers
from diffrep_jax.errors import UserError
from diffrep_jax.train import heap


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
        from launch import cluster

        cluster.join()


def together(run: Callable[[list[str]], None], argv: list[str]) -> None:
    """`run`; then all processes part. Where this one ends by an error, it goes alone, and the others hear why."""
    try:
        run(argv)
    except SystemExit as stop:
        if (error := stop.__context__) is not None:  # `run` has put it into a line
            if not isinstance(error, UserError | KeyboardInterrupt):
                peers.explain()
            _flush()
            peers.leave(str(error) or type(error).__name__, int(stop.code or 0))
        _part()
        raise
    except BaseException as error:
        peers.explain()
        traceback.print_exc()
        _flush()
        peers.leave(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}", 1)
        raise
    _part()


def _part() -> None:
    peers.finish()
    if "jax" in sys.modules:
        from launch import cluster

        cluster.part()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
