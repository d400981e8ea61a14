"""The exponential integrator of order 1: DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16) for any process.

With x_t = a x_T + b x_0 + c eps, a step from s to t keeps the estimate D of x_0 and the noise that belongs to it:

    eps = (x_s - a_s x_T - b_s D) / c_s
    x_t = a_t x_T + b_t D + sqrt(c_t^2 - r^2) eps + r n,      r = eta c_t sqrt(1 - e^(-2 h)),  n ~ N(0, 1)

where e^-h = (b_s / c_s) (c_t / b_t). At eta = 0 it solves the ODE exactly but for the change of D, also where b_t
or c_t is 0, and runs in both directions: upward it encodes. eta = 1 is ancestral sampling: DDPM where a = 0, the Markov
chain of DBIM (Zheng et al. 2024, arXiv 2405.15885) on a bridge.
"""

import dataclasses

import jax.numpy as jnp

from diffrep_jax.samplers.drift import Problem, noise_of
from diffrep_jax.types import Array, Image


@dataclasses.dataclass(frozen=True)
class Exponential:
    """One evaluation a step. eta >= 0 scales the fresh noise of a step; 0: none, and the result follows from x_T."""

    eta: float = 0.0
    order = 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def evaluations(self, steps: int) -> int:
        return steps

    def step(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None = None) -> Image:
        denoised = problem.denoiser(x, t)
        eps = noise_of(problem.process, denoised, x, problem.xT, t)
        a, b, c = problem.process.coefficients(t_next)
        if not self.stochastic:
            return a * problem.xT + b * denoised + c * eps
        _, b_now, c_now = problem.process.coefficients(t)
        fresh = self.eta * c * jnp.sqrt(jnp.maximum(1 - (b_now * c / (c_now * b)) ** 2, 0))
        fresh = jnp.minimum(fresh, c)  # eta > 1 would ask for more noise than there is
        return a * problem.xT + b * denoised + jnp.sqrt(c**2 - fresh**2) * eps + fresh * noise

    last = step


Sampler = Exponential
