"""Noise to start a bridge with: the state next to x_T as it is drawn, where DBAE starts from x_T itself.

    x = a x_T + b D(x_T, t) + c eps,   eps ~ N(0, 1),   t = T - 1e-4

At eta = 0 this gives the detail that x_T leaves open, by chance, as "booting noise" does (DBIM, Zheng et al. 2024,
2405.15885). b is next to nothing there: `noise_only` drops that term, and with it an evaluation.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.samplers.drift import Node, Problem, nodes_at
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Image, Process, PyTree

STARTS = ("mean", "noise", "noise_only")  # "mean" is x_T itself: no noise


class Started(NamedTuple):
    """The node where a step starts, and what the inner stepper makes of the step."""

    node: Node
    rest: PyTree


@dataclasses.dataclass(frozen=True)
class NoisyStart(Stepper):
    """The steps of `inner`, from a x_T + c eps, with `denoised` from a x_T + b D + c eps by one more evaluation."""

    inner: Stepper
    denoised: bool

    noisy_start: ClassVar[bool] = True

    @property
    def stochastic(self) -> bool:
        return True

    def nfe(self, steps: int, upward: bool = False) -> int:
        return self.denoised + self.inner.nfe(steps, upward)

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> Started:
        if process.coefficients(np.asarray(process.t_max))[0] == 0:
            raise UserError("start=noise is for bridges: here x_T is noise already; use start=mean.")
        return Started(nodes_at(process, starts), self.inner.plan(process, starts, ends))

    def init(self, problem: Problem, x: Image, plan: Started, noise: Image | None) -> PyTree:
        assert noise is not None  # the driver draws it, as this is stochastic
        node, xT = plan.node, problem.xT
        start = node.a * xT + node.c * noise
        if self.denoised:
            start = start + node.b * problem.denoiser(xT, node.t)
        return self.inner.init(problem, start, plan.rest, None)

    def step(self, problem: Problem, carry: PyTree, plan: Started, noise: Image | None) -> PyTree:
        return self.inner.step(problem, carry, plan.rest, self._own(noise))

    def last(self, problem: Problem, carry: PyTree, plan: Started, noise: Image | None) -> PyTree:
        return self.inner.last(problem, carry, plan.rest, self._own(noise))

    def image(self, carry: PyTree) -> Image:
        return self.inner.image(carry)

    def _own(self, noise: Image | None) -> Image | None:
        return noise if self.inner.stochastic else None
