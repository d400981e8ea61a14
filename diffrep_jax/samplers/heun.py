"""Heun's method on the probability-flow ODE: order 2, 2 n - 1 evaluations (EDM, Karras et al. 2022, algorithm 1)."""

import dataclasses

from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.euler import Euler
from diffrep_jax.types import Array, Image


@dataclasses.dataclass(frozen=True)
class Heun:
    """An Euler step, corrected by the mean of the drifts at its two ends; the step to t = 0 is Euler's."""

    order = 2
    stochastic = False

    def evaluations(self, steps: int) -> int:
        return 2 * steps - 1

    def step(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None = None) -> Image:
        drift = problem.ode_drift(x, t)
        ahead = x + (t_next - t) * drift
        return x + (t_next - t) * (drift + problem.ode_drift(ahead, t_next)) / 2

    def last(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None = None) -> Image:
        return Euler().step(problem, x, t, t_next)


Sampler = Heun
