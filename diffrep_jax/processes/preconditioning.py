"""How a network's output F becomes the denoiser D, and how the loss weighs it: one formula for every process.

    D(x_t, t) = c_skip x_t + c_out F(c_in x_t, c_noise),     loss = weight (D - x_0)^2

`Karras` asks for inputs and targets of unit variance (EDM, Karras et al. 2022, appendix B.6; for bridges DDBM,
eq. 11-13 and appendix A.5), given the standard deviations of x_0 and x_T and their covariance. `Plain` is F itself.
"""

import dataclasses

import jax.numpy as jnp

from diffrep_jax.types import Array


def c_noise(t: Array) -> Array:
    """The time as the network sees it, 250 log t, finite also at t = 0 (DDBM adds 1e-44, which XLA flushes to 0)."""
    return 250 * jnp.log(jnp.maximum(t, 1e-37))


@dataclasses.dataclass(frozen=True)
class Karras:
    """Unit-variance preconditioning for x_t = a x_T + b x_0 + c eps."""

    sigma_data: float
    sigma_data_end: float
    cov_xy: float

    def scalings(self, a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
        """(c_skip, c_out, c_in) from the coefficients of the process."""
        s0, sT, s0T = self.sigma_data, self.sigma_data_end, self.cov_xy
        variance = a**2 * sT**2 + b**2 * s0**2 + 2 * a * b * s0T + c**2
        c_skip = (b * s0**2 + a * s0T) / variance
        c_out = jnp.sqrt((a**2 * (sT**2 * s0**2 - s0T**2) + s0**2 * c**2) / variance)
        return c_skip, c_out, 1 / jnp.sqrt(variance)

    def weight(self, a: Array, b: Array, c: Array) -> Array:
        return 1 / self.scalings(a, b, c)[1] ** 2


@dataclasses.dataclass(frozen=True)
class Plain:
    """The network predicts x_0 directly, all times weigh the same (`*_simple` in the official code)."""

    def scalings(self, a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
        return jnp.zeros_like(a), jnp.ones_like(a), jnp.ones_like(a)

    def weight(self, a: Array, b: Array, c: Array) -> Array:
        return jnp.ones_like(a)
