"""Samplers step by step: for large networks, whose programs take long to compile.

The driver's loop, and its last step, hold the network once each, and Heun's steps twice. Run in Python they call one
compiled network.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from diffrep_jax.inference import compiled


@contextlib.contextmanager
def in_python():
    """Here `decode` is no program of its own, and the driver's loop is one of Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "decode", compiled.decode.__wrapped__)
        patch.setattr(jax.lax, "fori_loop", _fori_loop)
        yield


def _fori_loop(low: Any, high: Any, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    for i in range(int(low), int(high)):
        carry = body(jnp.int32(i), carry)
    return carry


def with_compiled_denoiser(method: Any) -> Any:
    """An auto-encoder whose denoiser is the program that `Model.denoise` runs."""

    def denoiser(variables, z, xT):
        return lambda x, t: compiled.denoise(method, variables, x, jnp.broadcast_to(t, x.shape[:1]), z, xT)

    twin = dataclasses.replace(method)
    object.__setattr__(twin, "denoiser", denoiser)
    return twin
