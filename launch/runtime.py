"""The process around a run: log, memory, XLA's flags, JAX's compile cache, several hosts."""

import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from diffrep_jax import paths, peers
from diffrep_jax.errors import UserError
from diffrep_jax.train import heap

if TYPE_CHECKING:  # JAX is loaded once its memory is set up
    from diffrep_jax.train.settings import Runtime


def show_log(form: str, force: bool = False) -> None:
    """The log goes to standard output, without what libraries say below a warning; `force`: whatever they set up."""
    logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S", stream=sys.stdout, force=force)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_is_news)
    logging.raiseExceptions = False  # where nobody reads the log any more, or its disk is full, work goes on
    for library in ("absl", "jax", "orbax", "gcsfs", "fsspec"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what it says of lost tasks is raised as well


def _is_news(record: logging.LogRecord) -> bool:
    """Not what a library's thread logs with a trace and raises as well, nor what Grain lacks in older jaxlibs."""
    return not record.exc_info and "multiprocess worker profiling" not in str(record.msg)


def set_up(multihost: bool = False) -> None:
    """Call once, before JAX is used: keeps memory, turns the persistent compile cache on, joins the other hosts.

    The cache lies in JAX_COMPILATION_CACHE_DIR, by default in ~/.cache/diffrep_jax.
    """
    heap.keep()
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(paths.cache()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if multihost:
        from launch import cluster

        cluster.join()


def apply(settings: "Runtime") -> None:
    """What XLA reads when it starts: call before anything is computed. UserError for flags that it has not."""
    from diffrep_jax.models.attention import SWITCH

    if settings.memory_fraction:
        os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # the name of before; both are refused
        os.environ["XLA_CLIENT_MEM_FRACTION"] = str(settings.memory_fraction)
    if not settings.fused_attention:
        os.environ[SWITCH] = "0"
    for variable, of_tpus in (("LIBTPU_INIT_ARGS", True), ("XLA_FLAGS", False)):
        flags = [flag for flag in settings.xla_flags if flag.startswith("--xla_tpu_") == of_tpus]
        if flags:
            os.environ[variable] = " ".join([os.environ.get(variable, ""), *flags]).strip()
            if not of_tpus:
                _check_flags()


def _check_flags() -> None:
    """Raise UserError where XLA would end the process for a flag that it does not know."""
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace")
    if done.returncode:
        reason = next(iter(done.stderr.splitlines()), "no reason given").partition("] ")[2]
        raise UserError(f"XLA refuses config.runtime.xla_flags: {reason.rstrip('.')}; mend or leave out the flag.")


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
