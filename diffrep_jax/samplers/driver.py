"""The only loop over time: runs a sampler's steps along a grid of times as one traced computation.

A sampler is one file that ends `Sampler = ...`, a frozen dataclass on `Stepper`. What its steps need of the process is
planned on the host in float64 and handed to the loop as arrays; between the steps it carries what it likes. Samplers
know closures, not networks.

How many steps there are is a value, not a shape: one compiled program serves any number of them up to ROWS.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.samplers.drift import Problem, intervals
from diffrep_jax.types import Array, Image, Keys, Process, PyTree

START = 2**31 - 3  # the step index of the noise that a start draws; no step has it, nor inference.compiled
ROWS = 128  # of a plan: it is filled up to as many, or twice, four times, ... as many where there are more steps

Noise = Callable[[Array], Image]  # step index -> standard normal noise of the shape of x


@dataclasses.dataclass(frozen=True)
class Stepper:
    """A sampler. Fields are what of a `Sampling` recipe it takes, by the same names.

    inverse: whether it also runs upward, from x_0 to where decoding starts. memory: whether a step reads what earlier
    ones have left, so that consecutive steps have to meet. reversible: whether what comes back of an inverted image is
    that image; it then goes up and down the same times, and starts from a stochastic code of twice the channels.
    noisy_start: whether `init` draws noise; without, its `noise` is None.
    """

    inverse: ClassVar[bool] = False
    memory: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    noisy_start: ClassVar[bool] = False

    @property
    def stochastic(self) -> bool:
        """Whether a step draws noise; without, its `noise` is None."""
        return False

    def nfe(self, steps: int, upward: bool = False) -> int:
        """How often `steps` intervals call the denoiser."""
        return steps

    def plan(self, process: Process, starts: np.ndarray, ends: np.ndarray) -> PyTree:
        """What the steps from each of `starts` [n] to `ends` [n] need: arrays [n, ...], here an `Interval`."""
        return intervals(process, starts, ends)

    def init(self, problem: Problem, x: Image, plan: PyTree, noise: Image | None) -> PyTree:
        """What is carried from step to step, at the start x; here the state alone. `plan`: that of the first step."""
        return x

    def step(self, problem: Problem, carry: PyTree, plan: PyTree, noise: Image | None) -> PyTree:
        """One interval; `plan` is its row."""
        raise NotImplementedError

    def last(self, problem: Problem, carry: PyTree, plan: PyTree, noise: Image | None) -> PyTree:
        """The final interval: where it ends in x_0, c is 0 there and the process has no drift."""
        return self.step(problem, carry, plan, noise)

    def image(self, carry: PyTree) -> Image:
        """The state."""
        return carry

    def returning(self, problem: Problem, carry: PyTree, plan: PyTree) -> Image:
        """After the last step upward, what decoding starts with: the state, or a reversible stepper's code."""
        return self.image(carry)


def normal_noise(keys: Keys, shape: tuple[int, ...]) -> Noise:
    """Noise that depends on an example's key and the step alone: the same in any batch and on any mesh."""

    def noise(step: Array) -> Image:
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape[1:]))(keys)

    return noise


class Plan(NamedTuple):
    """What steps need: their number, and arrays [rows, ...] of which the first `steps` rows count."""

    steps: Any
    rows: PyTree


def plan(stepper: Stepper, process: Process, times: np.ndarray) -> Plan:
    """The stepper's plan for the times [steps + 1], in the order that they are gone through."""
    steps = len(times) - 1
    missing = max(ROWS, 1 << (steps - 1).bit_length()) - steps
    rows = stepper.plan(process, times[:-1], times[1:])
    filled = jax.tree.map(lambda leaf: np.concatenate([leaf, np.repeat(leaf[-1:], missing, axis=0)]), rows)
    return Plan(np.asarray(steps, np.int32), filled)


def sample(stepper: Stepper, problem: Problem, x: Image, plan: Plan, noise: Noise | None = None) -> Image:
    """Integrate from x, [b, h, w, c], through all intervals of the plan; for decoding x is x_T.

    noise: step index -> noise; needed where the stepper is stochastic. Noise to start with has the index START.
    """
    return stepper.image(_integrate(stepper, problem, x, plan, noise)[0])


def invert(stepper: Stepper, problem: Problem, x: Image, plan: Plan) -> Image:
    """Integrate from x_0 upward: what decoding by the same stepper takes as its start, to come back."""
    carry, row = _integrate(stepper, problem, x, plan, None)
    return stepper.returning(problem, carry, row)


def _integrate(stepper: Stepper, problem: Problem, x: Image, plan: Plan, noise: Noise | None) -> tuple[PyTree, PyTree]:
    """(what is carried after the last step, the plan of that step)."""
    if stepper.stochastic and noise is None:
        raise ValueError(f"{stepper} draws noise: pass `noise`")
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf, x.dtype), plan.rows)
    last = jnp.asarray(plan.steps, jnp.int32) - 1

    def draw(i: Array) -> Image | None:
        return noise(i) if stepper.stochastic and noise is not None else None

    def row(i: Array | int) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[i], rows)

    def body(i: Array, carry: PyTree) -> PyTree:
        return stepper.step(problem, carry, row(i), draw(i))

    first = draw(jnp.asarray(START)) if stepper.noisy_start else None
    carry = stepper.init(problem, x, row(0), first)
    carry = jax.lax.fori_loop(0, last, body, carry)
    return stepper.last(problem, carry, row(last), draw(last)), row(last)
