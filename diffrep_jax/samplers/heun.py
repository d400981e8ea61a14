"""Heun's method on the probability-flow ODE: order 2, 2 n - 1 evaluations (EDM, Karras et al. 2022, algorithm 1)."""

import dataclasses
from typing import ClassVar

from diffrep_jax.samplers.drift import Interval, Problem, ode_drift
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.samplers.euler import euler_step
from diffrep_jax.types import Image


@dataclasses.dataclass(frozen=True)
class Heun(Stepper):
    """An Euler step, corrected by the mean of the drifts at its two ends; the step to t = 0 is Euler's."""

    order: ClassVar[int] = 2

    def nfe(self, steps: int, upward: bool = False) -> int:
        return 2 * steps - 1

    def step(self, problem: Problem, carry: Image, plan: Interval, noise: Image | None) -> Image:
        x, xT = carry, problem.xT
        drift = ode_drift(problem.denoiser(x, plan.now.t), x, xT, plan.now)
        ahead = x + plan.dt * drift
        return x + plan.dt * (drift + ode_drift(problem.denoiser(ahead, plan.then.t), ahead, xT, plan.then)) / 2

    def last(self, problem: Problem, carry: Image, plan: Interval, noise: Image | None) -> Image:
        return euler_step(problem, carry, plan)


Sampler = Heun
