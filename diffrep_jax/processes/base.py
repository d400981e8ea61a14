"""The Process protocol: x_t = a(t) x_T + b(t) x_0 + c(t) eps, and nothing else.

A process says its coefficients (a, b, c) and its diffusion rate g2. Loss weights, preconditioning, drifts and
samplers are written once in terms of these. A Gaussian diffusion is the case a = 0.
"""

from typing import Protocol

import jax.numpy as jnp

from diffrep_jax.types import Array, Image, Time


class Process(Protocol):
    """A pure description of a noising process on t in [t_min, t_max]; every function is elementwise in t."""

    t_data: float  # where x_t is x_0: sampling ends there, at or below t_min
    t_min: float
    t_max: float

    def coefficients(self, t: Array) -> tuple[Array, Array, Array]:
        """(a, b, c) at t, each with the shape of t."""
        ...

    def a_complement(self, t: Array) -> Array:
        """1 - a, accurate also where a is near 1: at T the difference of floats has no digits left."""
        ...

    def g2(self, t: Array) -> Array:
        """The squared diffusion rate g(t)^2 of the forward SDE."""
        ...


def per_image(values: Time, images: Image) -> Array:
    """Reshape [b] to [b, 1, 1, 1], so that one number an example broadcasts over its image."""
    return jnp.reshape(values, values.shape + (1,) * (images.ndim - values.ndim))


def diffuse(process: Process, x0: Image, xT: Image, eps: Image, t: Time) -> Image:
    """x_t = a x_T + b x_0 + c eps at one time an example."""
    a, b, c = (per_image(k, x0) for k in process.coefficients(t))
    return a * xT + b * x0 + c * eps
