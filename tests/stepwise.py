"""Samplers step by step: for large networks, whose programs take long to compile.

The driver's scan, and its last step, hold the network once each, and Heun's steps twice. Run in Python they call one
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
    """Here `decode` is no program of its own, and scans are loops of Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "decode", compiled.decode.__wrapped__)
        patch.setattr(jax.lax, "scan", _scan)
        yield


def _scan(body: Callable[[Any, Any], tuple[Any, None]], carry: Any, inputs: Any) -> tuple[Any, None]:
    """`lax.scan` where the steps have no outputs."""
    for i in range(len(jax.tree.leaves(inputs)[0])):
        carry, _ = body(carry, jax.tree.map(lambda leaf, i=i: leaf[i], inputs))
    return carry, None


def with_compiled_denoiser(method: Any) -> Any:
    """An auto-encoder whose denoiser is the program that `Model.denoise` runs."""

    def denoiser(variables, z, xT):
        return lambda x, t: compiled.denoise(method, variables, x, jnp.broadcast_to(t, x.shape[:1]), z, xT)

    twin = dataclasses.replace(method)
    object.__setattr__(twin, "denoiser", denoiser)
    return twin
