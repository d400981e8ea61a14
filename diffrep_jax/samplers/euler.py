"""Euler's method on the probability-flow ODE: order 1, one evaluation a step (DBAE's sampler for MSE and SSIM)."""

import dataclasses

from diffrep_jax.samplers.drift import Problem
from diffrep_jax.types import Array, Image


@dataclasses.dataclass(frozen=True)
class Euler:
    """x_next = x + (t_next - t) d(x, t)."""

    order = 1
    stochastic = False

    def evaluations(self, steps: int) -> int:
        return steps

    def step(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None = None) -> Image:
        return x + (t_next - t) * problem.ode_drift(x, t)

    last = step


Sampler = Euler
