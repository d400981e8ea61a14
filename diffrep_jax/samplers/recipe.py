"""How an image is decoded: the config's section `sampling` as one value, which is passed whole."""

import contextlib
import dataclasses
import numbers
import operator
from typing import Any

import numpy as np

from diffrep_jax import discovery
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import whole
from diffrep_jax.samplers import driver
from diffrep_jax.samplers.churn import Churn
from diffrep_jax.samplers.driver import Stepper
from diffrep_jax.samplers.grids import GRIDS
from diffrep_jax.samplers.start import STARTS, NoisyStart
from diffrep_jax.types import Process, PyTree

PACKAGE = "diffrep_jax.samplers"
ENCODE = ("mean", "sample")
ENCODING = "exponential"  # the sampler that encodes for those that do not run upward


def samplers() -> tuple[str, ...]:
    """The samplers that a recipe may name: the files of this folder that end in `Sampler = ...`."""
    return discovery.names(PACKAGE, "Sampler")


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The recipe; raises UserError for what does not fit together.

    Attributes:
      sampler: a file of samplers/; grid: of `grids.GRIDS`; steps: intervals of the grid.
      churn_step_ratio: in [0, 1), the part of each step that is an SDE's; 0: none.
      eta: the fresh noise of a step, for the sampler exponential; 0: none, 1: ancestral sampling. It, churn and the
        start's noise are of decoding from x_T; from a stochastic code there is none: `returning`.
      order, corrector, clock: the exponential sampler's; order above 1 and the corrector go with eta 0.
      start: of a bridge, "mean": x_T; "noise": with the noise that the state next to x_T has, "noise_only": by one
        evaluation less.
      encode: a stochastic encoder's "mean", or a "sample" of it by the seed and the image's number, as the papers do.
      seed: of all noise, which goes by image number.
    """

    sampler: str = "exponential"
    grid: str = "karras"
    steps: int = 40
    churn_step_ratio: float = 0.0
    eta: float = 0.0
    order: int = 1
    corrector: bool = False
    clock: str = "lambda"
    start: str = "mean"
    encode: str = "mean"
    seed: int = 0

    def __post_init__(self):
        if self.grid not in tuple(GRIDS):
            raise unknown("grid", self.grid, GRIDS, "sampling.grid")
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS, "sampling.start")
        if self.encode not in ENCODE:
            raise unknown("way to encode", self.encode, ENCODE, "sampling.encode")
        for field in ("churn_step_ratio", "eta"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, numbers.Real):
                raise UserError(f"sampling.{field} {value!r} is no number; give one, such as 0.5, or 0 for none.")
            object.__setattr__(self, field, float(value))
        if not 0 <= self.churn_step_ratio < 1:
            raise UserError(f"churn_step_ratio {self.churn_step_ratio} is outside [0, 1); 0 turns churn off.")
        for field, least, most in (("steps", 1, 100_000), ("seed", 0, 2**31 - 1)):
            object.__setattr__(self, field, whole(getattr(self, field), f"sampling.{field}", least, most))
        if isinstance(self.order, numbers.Integral) and not isinstance(self.order, bool):
            object.__setattr__(self, "order", operator.index(self.order))
        self.stepper()

    def stepper(self) -> Stepper:
        """The sampler with its parameters, with churn before each step and noise to start with as asked for."""
        stepper = self._build(self.sampler)
        if self.churn_step_ratio and (stepper.stochastic or stepper.memory):
            raise UserError(
                f"churn_step_ratio {self.churn_step_ratio} does not go with sampler {self.sampler} as it is set, which "
                f"{'draws noise of its own' if stepper.stochastic else 'remembers its steps'}; set it to 0."
            )
        if self.churn_step_ratio:
            stepper = Churn(stepper, self.churn_step_ratio)
        return stepper if self.start == "mean" else NoisyStart(stepper, denoised=self.start == "noise")

    def nodes(self, process: Process, upward: bool = False, coded: bool = False) -> np.ndarray:
        """The grid's times, float64, decreasing; `upward`: increasing, to encode.

        coded: to decode a stochastic code, which a reversible sampler does by the times that it went up.
        """
        grid = GRIDS[self.grid](process, self.steps)
        if self.stepper().reversible and (upward or coded):
            return grid.back() if upward else grid.back()[::-1]
        return grid.up() if upward else grid.down()

    def plan(self, process: Process, upward: bool = False, coded: bool = False) -> PyTree:
        """What the stepper's steps need, for `driver.sample`."""
        return driver.plan(self.stepper(), process, self.nodes(process, upward, coded))

    def nfe(self, process: Process, upward: bool = False, coded: bool = False) -> int:
        """How often a network is evaluated."""
        return self.stepper().nfe(len(self.nodes(process, upward, coded)) - 1, upward)

    def within(self, evaluations: int, process: Process, coded: bool = False) -> "Sampling | None":
        """The recipe with the most steps that make no more than so many evaluations; None where one step makes more."""
        for steps in range(evaluations, 0, -1):
            how = dataclasses.replace(self, steps=steps)
            with contextlib.suppress(UserError):  # numbers of steps that a grid has not
                if how.nfe(process, coded=coded) <= evaluations:
                    return how
        return None

    def inverted(self, steps: int) -> "Sampling":
        """The recipe to encode with: the same grid with so many steps, and the sampler if it runs upward."""
        how = self.returning()
        if not how.stepper().inverse:
            return Sampling(sampler=ENCODING, grid=self.grid, steps=steps, encode=self.encode, seed=self.seed)
        return dataclasses.replace(how, steps=steps)

    def check_inverted(self, steps: int) -> None:
        """Raise UserError where a sampler that comes back by the steps that it went up would have others."""
        if self.returning().stepper().reversible and steps != self.steps:
            raise UserError(
                f"invert_steps {steps} does not go with sampler {self.sampler}, which comes back by the steps that it "
                f"went up; use invert_steps={self.steps}, as sampling.steps is."
            )

    def returning(self) -> "Sampling":
        """The recipe to decode a stochastic code with, which is all the noise that there is.

        What else is random gives way: the noise to start with, eta and churn.
        """
        return dataclasses.replace(self, start="mean", eta=0.0, churn_step_ratio=0.0)

    def _build(self, name: str) -> Stepper:
        if name not in samplers():
            raise unknown("sampler", name, samplers(), "sampling.sampler")
        taken = _parameters(name)
        for field, usual in _PARAMETERS.items():
            value = getattr(self, field)
            if value != usual and field not in taken:
                others = [other for other in samplers() if field in _parameters(other)]
                raise UserError(
                    f"{field} {value} is of no use to sampler {name}; use sampler={' or '.join(others)}, or "
                    f"{field}={usual}."
                )
        cls = discovery.load(PACKAGE, name, "Sampler")
        return cls(**{field: getattr(self, field) for field in taken})


def _parameters(sampler: str) -> list[str]:
    """The fields of a recipe that a sampler takes."""
    return [field.name for field in dataclasses.fields(discovery.load(PACKAGE, sampler, "Sampler"))]


# The fields that are some sampler's own, with the values that ask for nothing.
_PARAMETERS: dict[str, Any] = {
    field.name: field.default
    for field in dataclasses.fields(Sampling)
    if field.name not in ("sampler", "grid", "steps", "churn_step_ratio", "start", "encode", "seed")
}
