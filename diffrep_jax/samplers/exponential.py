"""Exponential integrators of order 1 to 3 for any process. Order 1 is DDIM (Song et al. 2021, 2010.02502, eq. 12, 16).

With x_t = a x_T + b x_0 + c eps, a step from s to t keeps the estimate D_s of x_0 and the noise that belongs to it:

    eps = (x_s - a_s x_T - b_s D_s) / c_s
    x_t = a_t x_T + b_t D_s + sqrt(c_t^2 - r^2) eps + r n,      r = eta c_t sqrt(1 - e^(-2 h)),  n ~ N(0, 1)

where e^-h = (b_s / c_s) (c_t / b_t). At eta = 0 it solves the ODE exactly but for the change of D, also where b_t
or c_t is 0, and runs in both directions: upward it encodes. eta = 1 is ancestral sampling: DDPM where a = 0, the Markov
chain of DBIM (Zheng et al. 2024, 2405.15885) on a bridge.

Order k takes the change of D from the k - 1 evaluations before, as a polynomial in the clock u whose integral is exact
(clocks.py): x_t gets sum_j W_j (D_j - D_s) too. In lambda order 2 is DBIM's and DPM-Solver++(2M)'s (Lu et al. 2022,
2211.01095). The first step has order 1, the second at most 2, one to where w = b/c is 0 or infinite has order 1.

The corrector (UniPC, Zhao et al. 2023, 2302.04867) needs no evaluation of its own: once D_t is known, for the next
step, the polynomial through D_t too gives the state at t again, with one more order; the next step starts there.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.samplers.clocks import CLOCKS, lambda_clock, moments
from diffrep_jax.samplers.drift import Interval, Planned, Problem, intervals, noise_of
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Image, Process, PyTree


class Step(NamedTuple):
    """An interval, the deviations of the noise that is kept along it and of fresh noise, the weights of differences.

    ahead, back: [past], of D_j - D_s for the evaluations before, the latest first; for the state at t, and for the
    correction of the state at s.
    """

    interval: Interval
    kept: Planned
    fresh: Planned
    ahead: Planned
    back: Planned


class History(NamedTuple):
    """The state and the evaluations of D before, the latest first."""

    x: Image
    past: tuple[Image, ...]


@dataclasses.dataclass(frozen=True)
class Exponential(Stepper):
    """One evaluation a step.

    eta: >= 0 scales the fresh noise of a step; 0: none, and the result follows from the start. order: 1, 2 or 3.
    corrector: whether a state is corrected once D is known there. clock: of clocks.CLOCKS, in which D is a polynomial.
    """

    eta: float = 0.0
    order: int = 1
    corrector: bool = False
    clock: str = "lambda"

    def __post_init__(self):
        if not 0 <= self.eta < np.inf:
            raise UserError(f"eta {self.eta} is below 0 or no number; 0 draws no noise, 1 is ancestral sampling.")
        if type(self.order) is not int or self.order not in (1, 2, 3):
            raise UserError(f"order {self.order!r} of the exponential integrator must be 1, 2 or 3.")
        if type(self.corrector) is not bool:
            raise UserError(f"corrector {self.corrector!r} must be True or False.")
        if self.clock not in tuple(CLOCKS):
            raise unknown("clock", self.clock, CLOCKS, "sampling.clock")
        if self.eta and self.order > 1:
            raise UserError(
                f"order {self.order} does not go with eta {self.eta}: fresh noise has order=1; or set eta=0."
            )
        if self.eta and self.corrector:
            raise UserError(f"corrector does not go with eta {self.eta}: it would undo the fresh noise; set one to 0.")
        if self.clock != "lambda" and self.order + self.corrector > 2:
            raise UserError(
                f"clock {self.clock} goes with order=2, or with order=1 and the corrector; for order {self.order}"
                f"{' and the corrector' * self.corrector} use clock=lambda."
            )
        if self.clock != "lambda" and not self.memory:
            raise UserError(f"clock {self.clock} is of no use to order 1, which has none; use order=2 or clock=lambda.")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def inverse(self) -> bool:
        return not self.stochastic

    @property
    def memory(self) -> bool:
        return self._kept > 0

    @property
    def _kept(self) -> int:
        """How many evaluations before this one are used."""
        return self.order - 1 + self.corrector

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> Step:
        interval = intervals(process, starts, ends)
        now, then = interval.now, interval.then
        fresh = np.zeros_like(then.c)
        if self.stochastic:
            remaining = 1 - (now.b * then.c / (now.c * then.b)) ** 2
            fresh = self.eta * then.c * np.sqrt(np.maximum(remaining, 0))
            fresh = np.minimum(fresh, then.c)  # eta > 1 would ask for more noise than there is
        return Step(interval, np.sqrt(then.c**2 - fresh**2), fresh, *self._weights(process, interval))

    def _weights(self, process: Process, interval: Interval) -> tuple[np.ndarray, np.ndarray]:
        """(ahead, back) of each interval, [n, past]."""
        steps = len(interval.now.t)
        ahead, back = np.zeros((steps, self._kept)), np.zeros((steps, self._kept))
        if not self.memory:
            return ahead, back
        finite = np.isfinite(lambda_clock(process, interval.now.t)) & np.isfinite(
            lambda_clock(process, interval.then.t)
        )
        used = np.where(finite, np.minimum(np.arange(steps), self.order - 1), 0)  # evaluations before
        with np.errstate(divide="ignore", invalid="ignore"):
            M = moments(self.clock, process, interval, self._kept)
            u = CLOCKS[self.clock](process, interval.now.t)
        for count in range(1, self.order):
            rows = np.flatnonzero(used == count)
            offsets = [u[rows - j] - u[rows] for j in range(1, count + 1)]
            ahead[rows, :count] = _integrated(offsets, M[:count, rows])
        if self.corrector:
            for count in range(self.order):
                rows = 1 + np.flatnonzero((used[:-1] == count) & finite[:-1])  # whose step before had so many
                offsets = [u[rows - j] - u[rows - 1] for j in (0, *range(2, count + 2))]
                weights = _integrated(offsets, M[: count + 1, rows - 1])
                # sum_j weights_j (D_j - D_s) less the same with `ahead`, as weights of D_j - D_t
                back[rows, 0] = ahead[rows - 1].sum(1) - weights.sum(1)
                back[rows, 1 : count + 1] = weights[:, 1:] - ahead[rows - 1, :count]
        return ahead, back

    def init(self, problem: Problem, x: Image, plan: PyTree, noise: Image | None) -> History:
        return History(x, (jnp.zeros_like(x),) * self._kept)

    def step(self, problem: Problem, carry: History, plan: Step, noise: Image | None) -> History:
        (x, past), now, then, xT = carry, plan.interval.now, plan.interval.then, problem.xT
        denoised = problem.denoiser(x, now.t)
        changes = [earlier - denoised for earlier in past]
        if self.corrector:
            x = x + sum(plan.back[j] * change for j, change in enumerate(changes))
        state = then.a * xT + then.b * denoised + plan.kept * noise_of(denoised, x, xT, now)
        for j, change in enumerate(changes):
            state = state + plan.ahead[j] * change
        if noise is not None:
            state = state + plan.fresh * noise
        return History(state, (denoised, *past)[: self._kept])

    def image(self, carry: History) -> Image:
        return carry.x


def _integrated(offsets: list[np.ndarray], M: np.ndarray) -> np.ndarray:
    """The weights [n, k] of D_j - D_s in the integral of the polynomial through D_s and k others at u_s + offsets.

    M: the moments 1 .. k of the interval, [k, n].
    """
    places = np.stack(offsets)  # [k, n]
    unit = np.abs(places).max(0)
    powers = np.arange(1, len(places) + 1)[:, None]
    matrix = (places / unit)[:, None] ** powers  # [node, power, n]
    return np.linalg.solve(np.moveaxis(matrix, 2, 0).swapaxes(1, 2), (M / unit**powers).T[..., None])[..., 0]


Sampler = Exponential
