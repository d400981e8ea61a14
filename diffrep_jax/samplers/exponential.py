"""The exponential integrator of order 1: DDIM (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16) for any process.

With x_t = a x_T + b x_0 + c eps, a step from s to t keeps the estimate D of x_0 and the noise that belongs to it:

    eps = (x_s - a_s x_T - b_s D) / c_s
    x_t = a_t x_T + b_t D + sqrt(c_t^2 - r^2) eps + r n,      r = eta c_t sqrt(1 - e^(-2 h)),  n ~ N(0, 1)

where e^-h = (b_s / c_s) (c_t / b_t). At eta = 0 it solves the ODE exactly but for the change of D, also where b_t
or c_t is 0, and runs in both directions: upward it encodes. eta = 1 is ancestral sampling: DDPM where a = 0, the Markov
chain of DBIM (Zheng et al. 2024, arXiv 2405.15885) on a bridge.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.samplers.drift import Interval, Problem, intervals, noise_of
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Array, Image, Process


class Step(NamedTuple):
    """An interval, the deviation of the noise that is kept along it, and that of fresh noise."""

    interval: Interval
    kept: Array
    fresh: Array


@dataclasses.dataclass(frozen=True)
class Exponential(Stepper):
    """One evaluation a step. eta >= 0 scales the fresh noise of a step; 0: none, and the result follows from x_T."""

    eta: float = 0.0

    order: ClassVar[int] = 1

    def __post_init__(self):
        if not 0 <= self.eta < np.inf:
            raise UserError(f"eta {self.eta} is below 0 or no number; 0 draws no noise, 1 is ancestral sampling.")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def inverse(self) -> bool:
        return not self.stochastic

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> Step:
        interval = intervals(process, starts, ends)
        now, then = interval.now, interval.then
        fresh = np.zeros_like(then.c)
        if self.stochastic:
            remaining = 1 - (now.b * then.c / (now.c * then.b)) ** 2
            fresh = self.eta * then.c * np.sqrt(np.maximum(remaining, 0))
            fresh = np.minimum(fresh, then.c)  # eta > 1 would ask for more noise than there is
        return Step(interval, np.sqrt(then.c**2 - fresh**2), fresh)

    def step(self, problem: Problem, carry: Image, plan: Step, noise: Image | None) -> Image:
        now, then, xT = plan.interval.now, plan.interval.then, problem.xT
        denoised = problem.denoiser(carry, now.t)
        state = then.a * xT + then.b * denoised + plan.kept * noise_of(denoised, carry, xT, now)
        return state if noise is None else state + plan.fresh * noise


Sampler = Exponential
