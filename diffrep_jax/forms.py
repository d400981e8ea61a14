"""Layers in several forms: the platform that a program is compiled for chooses one, whatever else is on the machine.

Forms that are fast on one platform may have a gradient of their own, and then no forward-mode derivative (`plain`).
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from diffrep_jax.types import Array

_known = jax.make_user_context(None)  # the platform; part of the key of what jit has traced
_estimate = jax.make_user_context(False)


def by_platform(
    *arrays: Array,
    cpu: Callable[..., Array],
    elsewhere: Callable[..., Array],
    cuda: Callable[..., Array] | None = None,
) -> Array:
    """`cpu(*arrays)` on CPUs, `cuda(*arrays)`, if there is one, on NVIDIA's GPUs, `elsewhere(*arrays)` on all others.

    All compute the same function; `elsewhere` runs on any platform and has every derivative. Where the platform is not
    known while tracing, all are traced and XLA is given the one of its platform.
    """
    platform = _known.value
    if platform is None:
        known = {"cpu": cpu} if cuda is None else {"cpu": cpu, "cuda": cuda}
        return lax.platform_dependent(*arrays, **known, default=elsewhere)
    return {"cpu": cpu, "cuda": cuda or elsewhere}.get(platform, elsewhere)(*arrays)


def tracing_for(platform: str) -> contextlib.AbstractContextManager[None]:
    """Inside, by this thread, programs are traced for one platform, as `platform_of` says it, only: in half the time.

    What is traced for "cuda" may run there alone; all else runs on any platform, if slower.
    """
    return _known(platform)


def platform_of(device: Any) -> str:
    """ "cpu", "tpu", "cuda", or "gpu" for those that are not NVIDIA's."""
    return "cuda" if device.platform == "gpu" and "cuda" in device.client.platform_version else device.platform


def plain() -> contextlib.AbstractContextManager[None]:
    """Inside, by this thread, all layers are traced in their form `elsewhere`.

    It has every derivative: inside, `jax.jvp` of a network works on any platform.
    """
    return _known("any")


def estimating() -> contextlib.AbstractContextManager[None]:
    """Inside, by this thread, what is traced for "cuda" has the memory of cuDNN's forms; it needs no GPU."""
    return _estimate(True)


def is_estimate() -> bool:
    """Whether `estimating` holds."""
    return _estimate.value
