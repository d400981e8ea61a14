"""The reverse-time drifts of x_t = a x_T + b x_0 + c eps, given an estimate of x_0.

    ODE  dx/dt = a' x_T + b' x_0 + c' eps,   eps = (x - a x_T - b x_0) / c
    SDE  the ODE drift - g2/2 score,         score = -eps / c,   with noise sqrt(g2 |dt|)

Equal to the drifts of DDBM (eq. 8 and 9, guidance 1) for the VE and the VP bridge; derivatives by forward mode.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffrep_jax.types import Array, Image

Denoiser = Callable[[Image, Array], Image]  # D(x_t, t): x_t [b, h, w, c], t a scalar -> an estimate of x_0


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a sampler solves: a process, a denoiser D(x_t, t) and the fixed end x_T."""

    process: Any
    denoiser: Denoiser
    xT: Image

    def ode_drift(self, x: Image, t: Array) -> Image:
        """dx/dt of the probability-flow ODE; one evaluation of the denoiser."""
        return ode_drift(self.process, self.denoiser(x, t), x, self.xT, t)

    def sde_drift(self, x: Image, t: Array) -> Image:
        """The drift of the reverse-time SDE; one evaluation of the denoiser."""
        return sde_drift(self.process, self.denoiser(x, t), x, self.xT, t)


def ode_drift(process: Any, denoised: Image, x: Image, xT: Image, t: Array) -> Image:
    """dx/dt at (x, t) for the estimate `denoised` of x_0."""
    _, (da, db, dc) = jax.jvp(process.coefficients, (t,), (jnp.ones_like(t),))
    return da * xT + db * denoised + dc * noise_of(process, denoised, x, xT, t)


def sde_drift(process: Any, denoised: Image, x: Image, xT: Image, t: Array) -> Image:
    """The reverse-time SDE's drift at (x, t); its noise has the rate sqrt(g2)."""
    c = process.coefficients(t)[2]
    score = -noise_of(process, denoised, x, xT, t) / c
    return ode_drift(process, denoised, x, xT, t) - process.g2(t) / 2 * score


def noise_of(process: Any, denoised: Image, x: Image, xT: Image, t: Array) -> Image:
    """eps = (x - a x_T - b x_0) / c. Near T, where x is near x_T, x - a x_T is (x - x_T) + (1 - a) x_T."""
    a, b, c = process.coefficients(t)
    rest = jnp.where(a > 0.5, (x - xT) + process.a_complement(t) * xT, x - a * xT)
    return (rest - b * denoised) / c
