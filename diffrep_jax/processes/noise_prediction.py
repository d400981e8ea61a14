"""What methods share that predict the noise of a Gaussian diffusion, a = 0: eps -> x_0, and x_T ~ N(0, I)."""

import jax
import jax.numpy as jnp

from diffrep_jax.processes.base import Process, per_image
from diffrep_jax.types import Array, Image, Keys


def denoised_of(process: Process, eps: Image, x: Image, t: Array) -> Image:
    """x_0 = (x_t - c eps) / b, the estimate of the image that goes with one of the noise; t [b] or a scalar."""
    _, b, c = (per_image(k, x) for k in process.coefficients(jnp.broadcast_to(t, x.shape[:1])))
    return (x - c * eps) / b


def noise_weight(process: Process, t: Array) -> Array:
    """(b / c)^2: what |D - x_0|^2 weighs in |eps_hat - eps|^2, for the two estimates that go together."""
    _, b, c = process.coefficients(t)
    return (b / c) ** 2


def normal_endpoint(keys: Keys, shape: tuple[int, ...]) -> Image:
    """x_T ~ N(0, I), an image of this shape for each key."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
