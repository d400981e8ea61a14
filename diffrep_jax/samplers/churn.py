"""Churn: before each ODE step, an SDE step over the first part of the interval (DDBM, algorithm 1; DBAE: 0.33)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffrep_jax.samplers.drift import Interval, Problem, intervals, sde_drift
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Image, Process, PyTree


class Churned(NamedTuple):
    """The part of an interval that is churned, and what the inner stepper makes of the rest."""

    churned: Interval
    rest: PyTree


@dataclasses.dataclass(frozen=True)
class Churn(Stepper):
    """An SDE Euler step to t + churn_step_ratio dt, then the step of `inner`: one more evaluation each."""

    inner: Stepper
    churn_step_ratio: float

    @property
    def stochastic(self) -> bool:
        return True

    def nfe(self, steps: int, upward: bool = False) -> int:
        return steps + self.inner.nfe(steps)

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> Churned:
        middles = starts + self.churn_step_ratio * (ends - starts)
        return Churned(intervals(process, starts, middles), self.inner.plan(process, middles, ends))

    def step(self, problem: Problem, carry: Image, plan: Churned, noise: Image | None) -> Image:
        start = self._start(problem, carry, plan, noise)
        return self.inner.image(self.inner.step(problem, start, plan.rest, None))

    def last(self, problem: Problem, carry: Image, plan: Churned, noise: Image | None) -> Image:
        start = self._start(problem, carry, plan, noise)
        return self.inner.image(self.inner.last(problem, start, plan.rest, None))

    def _start(self, problem: Problem, x: Image, plan: Churned, noise: Image | None) -> PyTree:
        """What the inner stepper carries: it remembers nothing, so each of its steps is a first one."""
        return self.inner.init(problem, self._churn(problem, x, plan.churned, noise), plan.rest, None)

    def _churn(self, problem: Problem, x: Image, part: Interval, noise: Image | None) -> Image:
        assert noise is not None  # the driver draws it, as this is stochastic
        drift = sde_drift(problem.denoiser(x, part.now.t), x, problem.xT, part.now)
        return x + part.dt * drift + jnp.sqrt(part.now.g2 * jnp.abs(part.dt)) * noise
