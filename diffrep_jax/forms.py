"""Layers in several forms: the platform that a program is compiled for chooses one, whatever else is on the machine."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

from jax import lax

from diffrep_jax.types import Array

_known: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


def by_platform(*arrays: Array, cpu: Callable[..., Array], elsewhere: Callable[..., Array]) -> Array:
    """`cpu(*arrays)` on CPUs, `elsewhere(*arrays)` on all other platforms. Both compute the same function.

    Where the platform is not known while tracing, both are traced and XLA is given the one of its platform.
    """
    platform = _known.get()
    if platform is None:
        return lax.platform_dependent(*arrays, cpu=cpu, default=elsewhere)
    return cpu(*arrays) if platform == "cpu" else elsewhere(*arrays)


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
    """Inside, by this thread, programs are traced for one platform ("cpu", "gpu", "tpu") only, in half the time.

    The results are right on any other platform too, where they cost more.
    """
    token = _known.set(platform)
    try:
        yield
    finally:
        _known.reset(token)
