"""Churn: before each ODE step, an SDE step over the first part of the interval (DDBM, algorithm 1; DBAE: 0.33)."""

import dataclasses

import jax.numpy as jnp

from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Array, Image


@dataclasses.dataclass(frozen=True)
class Churn:
    """An SDE Euler step to t + churn_step_ratio (t_next - t), then the step of `inner`: one more evaluation each."""

    inner: Stepper
    churn_step_ratio: float
    stochastic = True

    def evaluations(self, steps: int) -> int:
        return steps + self.inner.evaluations(steps)

    def step(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None) -> Image:
        return self.inner.step(problem, *self._churn(problem, x, t, t_next, noise), t_next, None)

    def last(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None) -> Image:
        return self.inner.last(problem, *self._churn(problem, x, t, t_next, noise), t_next, None)

    def _churn(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None) -> tuple[Image, Array]:
        dt = self.churn_step_ratio * (t_next - t)
        rate = jnp.sqrt(problem.process.g2(t) * jnp.abs(dt))
        return x + dt * problem.sde_drift(x, t) + rate * noise, t + dt
