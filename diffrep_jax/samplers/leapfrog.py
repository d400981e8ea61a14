"""Leapfrog: one evaluation a step, exactly reversible. An image that was inverted comes back to float precision.

With Y = (x_t - a x_T)/c and w = b/c the ODE of any process is dY/dw = D. The midpoint rule over two intervals,

    Y_(i+1) = Y_(i-1) + (w_(i+1) - w_(i-1)) D(x_i, t_i),

is solved for Y_(i-1) by the same evaluation, so that two neighbouring states lead all the way back. The first step
is of order 1 (exponential.py). Upward the last two states are kept, as the last one and

    defect = Y_(n-1) less what a first step down from Y_n would give,

which is 0 for a decoding that starts from x_T alone. The way back leads over the same times; the image counts as the
state at t_min, and a decoding from a stochastic code ends there. In terms of r = x_t - a x_T = c Y, which is finite
also where c = 0. See Zhang et al. 2023 (BDIA, 2307.10829) for DDIM with such steps.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffrep_jax.samplers.drift import Node, Planned, Problem, nodes_at
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.types import Image, Process


class Leap(NamedTuple):
    """To `then` from the node before `now`: r_then = kept r_before + gain D_now; the first one from `now` itself.

    first: 1 for the first one, else 0. back_kept, back_gain: of a first step the other way.
    """

    now: Node
    then: Node
    kept: Planned
    gain: Planned
    first: Planned
    back_kept: Planned
    back_gain: Planned


class Pair(NamedTuple):
    """r at the node before, r now, x now, and the defect of the first step."""

    before: Image
    now: Image
    x: Image
    defect: Image


@dataclasses.dataclass(frozen=True)
class Leapfrog(Stepper):
    """It starts from a state or, of twice the channels, from (r, defect): near T a state has no digits left for r."""

    inverse: ClassVar[bool] = True
    memory: ClassVar[bool] = True
    reversible: ClassVar[bool] = True

    def nfe(self, steps: int, upward: bool = False) -> int:
        return steps + upward  # the defect

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> Leap:
        now, then = nodes_at(process, starts), nodes_at(process, ends)
        before = nodes_at(process, np.concatenate([starts[:1], starts[:-1]]))
        first = np.arange(len(starts)) == 0
        with np.errstate(divide="ignore", invalid="ignore"):  # where c = 0 nothing leads back
            return Leap(now, then, *_leap(before, then), first.astype(np.float64), *_leap(then, now))

    def init(self, problem: Problem, x: Image, plan: Leap, noise: Image | None) -> Pair:
        channels, node, xT = problem.xT.shape[-1], plan.now, problem.xT
        if x.shape[-1] == 2 * channels:
            r, defect = x[..., :channels], x[..., channels:]
            return Pair(r, r, node.a * xT + r, defect)
        near = (x - xT) + node.a_complement * xT  # where a is near 1, without its rounding
        r = jnp.where(node.a > 0.5, near, x - node.a * xT)
        return Pair(r, r, x, jnp.zeros_like(r))

    def step(self, problem: Problem, carry: Pair, plan: Leap, noise: Image | None) -> Pair:
        r = plan.kept * carry.before + plan.gain * problem.denoiser(carry.x, plan.now.t) + plan.first * carry.defect
        return Pair(carry.now, r, plan.then.a * problem.xT + r, carry.defect)

    def image(self, carry: Pair) -> Image:
        return carry.x

    def returning(self, problem: Problem, carry: Pair, plan: Leap) -> Image:
        down = plan.back_kept * carry.now + plan.back_gain * problem.denoiser(carry.x, plan.then.t)
        return jnp.concatenate([carry.now, carry.before - down], axis=-1)


def _leap(before: Node, then: Node) -> tuple[np.ndarray, np.ndarray]:
    """(kept, gain): Y_then = Y_before + (w_then - w_before) D, in terms of r."""
    kept = then.c / before.c
    return kept, then.b - kept * before.b


Sampler = Leapfrog
