"""Euler's method on the probability-flow ODE: order 1, one evaluation a step (DBAE's sampler for MSE and SSIM)."""

import dataclasses
from typing import ClassVar

from diffrep_jax.samplers.drift import Interval, Problem, ode_drift
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Image


@dataclasses.dataclass(frozen=True)
class Euler(Stepper):
    """x_next = x + dt d(x, t)."""

    order: ClassVar[int] = 1

    def step(self, problem: Problem, carry: Image, plan: Interval, noise: Image | None) -> Image:
        return euler_step(problem, carry, plan)


def euler_step(problem: Problem, x: Image, plan: Interval) -> Image:
    return x + plan.dt * ode_drift(problem.denoiser(x, plan.now.t), x, problem.xT, plan.now)


Sampler = Euler
