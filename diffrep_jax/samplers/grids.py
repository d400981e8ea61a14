"""Grids of times for one process, on the host in float64: `down` for decoding, `up` for encoding."""

import dataclasses
from typing import ClassVar

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.samplers.clocks import lambda_clock, log_rho_clock
from diffrep_jax.types import Process

T_GAP = 1e-4  # a bridge is sampled from t = T - T_GAP: at T itself it has no noise and no drift


@dataclasses.dataclass(frozen=True)
class Grid:
    """`steps` intervals of a process. Subclasses say `down`; raises UserError where they don't fit each other."""

    name: ClassVar[str]  # in a recipe

    process: Process
    steps: int

    def down(self) -> np.ndarray:
        """Decreasing times [steps + 1], the last one where x_t is x_0; of `DdimLinspace` step 0, as published."""
        raise NotImplementedError

    def up(self) -> np.ndarray:
        """The way back, increasing: x_0 counts as the state at the first of them, as at t_data no drift exists.

        Raises UserError where that leaves no interval.
        """
        return self.back()

    def back(self) -> np.ndarray:
        """The times of `down` in the other order, but for t_data; `up` may end elsewhere."""
        down = self.down()
        increasing = down[down > self.process.t_data][::-1]
        if len(increasing) < 2:
            raise UserError(f"steps {self.steps} leaves no step upward on this grid; use at least {self.steps + 1}.")
        return increasing


@dataclasses.dataclass(frozen=True)
class _Continuous(Grid):
    """`steps` times from T - 1e-4 to t_min, then where x_t is x_0. For any process: time need not be whole."""

    def down(self) -> np.ndarray:
        first, last = self.process.t_max - T_GAP, self.process.t_min
        return np.append(self.between(first, last), self.process.t_data)

    def between(self, first: float, last: float) -> np.ndarray:
        """Decreasing times [steps] from `first` to `last`, of one step the first alone."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Karras(_Continuous):
    """Equidistant in t^(1/rho) (EDM eq. 5)."""

    name = "karras"

    rho: float = 7.0

    def between(self, first: float, last: float) -> np.ndarray:
        first, last = (t ** (1 / self.rho) for t in (first, last))
        return (first + np.linspace(0, 1, self.steps) * (last - first)) ** self.rho


@dataclasses.dataclass(frozen=True)
class UniformT(_Continuous):
    """Equidistant in t."""

    name = "uniform_t"

    def between(self, first: float, last: float) -> np.ndarray:
        return np.linspace(first, last, self.steps)


@dataclasses.dataclass(frozen=True)
class _UniformInClock(_Continuous):
    """Equidistant in a clock, which grows where t falls."""

    def clock(self, t: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def between(self, first: float, last: float) -> np.ndarray:
        ends = self.clock(np.array([first, last]))
        readings = np.linspace(ends[0], ends[1], self.steps)[1:-1]
        early, late = np.full(readings.shape, first), np.full(readings.shape, last)
        for _ in range(100):  # bisection; a float64 has 53 bits
            middle = (early + late) / 2
            before = self.clock(middle) < readings
            early, late = np.where(before, middle, early), np.where(before, late, middle)
        return np.concatenate([[first], (early + late) / 2, [last]])[: self.steps]


@dataclasses.dataclass(frozen=True)
class UniformLambda(_UniformInClock):
    """Equidistant in lambda = log b/c, half the logarithm of the signal-to-noise ratio."""

    name = "uniform_lambda"

    def clock(self, t: np.ndarray) -> np.ndarray:
        return lambda_clock(self.process, t)


@dataclasses.dataclass(frozen=True)
class UniformLogRho(_UniformInClock):
    """Equidistant in -log rho: on a bridge lambda as if its end were open, else the same as lambda."""

    name = "uniform_log_rho"

    def clock(self, t: np.ndarray) -> np.ndarray:
        return log_rho_clock(self.process, t)


@dataclasses.dataclass(frozen=True)
class _Respaced(Grid):
    """Some of the time-steps of a discrete process."""

    def __post_init__(self):
        if self.process.steps is None:
            raise UserError(
                f"grid {self.name} takes every n-th of discrete steps, and this process has none; use grid=karras."
            )
        if self.steps > self._most(self.process.steps):
            raise UserError(
                f"steps {self.steps} is above what grid {self.name} can take of {self.process.steps} steps; use fewer."
            )

    def _most(self, total: int) -> int:
        return total

    @property
    def _total(self) -> int:
        return self.process.steps or 0


@dataclasses.dataclass(frozen=True)
class DdimLinspace(_Respaced):
    """PDAE's respacing of discrete steps: the `steps` + 1 integers of linspace(0, 999, steps + 1), downward."""

    name = "ddim_linspace"

    def _most(self, total: int) -> int:
        return total - 1

    def down(self) -> np.ndarray:
        return np.linspace(0, self._total - 1, self.steps + 1).astype(np.int64)[::-1].astype(np.float64)


@dataclasses.dataclass(frozen=True)
class DdimRange(_Respaced):
    """DiTi's respacing of discrete steps: range(0, 1000, 1000 // steps), downward, then where x_t is x_0.

    As there, it has more than `steps` intervals where `steps` does not divide 1000. The way up ends in the noise
    alone, above all steps.
    """

    name = "ddim_range"

    def down(self) -> np.ndarray:
        kept = np.arange(0, self._total, self._total // self.steps)[::-1]
        return np.append(kept.astype(np.float64), self.process.t_data)

    def up(self) -> np.ndarray:
        return np.append(self.down()[:-1][::-1], self.process.t_noise)


@dataclasses.dataclass(frozen=True)
class DdimSpace(DdimRange):
    """DiffAE's respacing: 0, s, 2 s, .. with the smallest integer s that makes `steps` of them.

    The last one mostly lies below 999; the way up ends in the noise alone. Raises UserError, with the nearest numbers
    of steps, where no s makes so many.
    """

    name = "ddim_space"

    def __post_init__(self):
        super().__post_init__()
        counts = -(-self._total // np.arange(1, self._total))  # by stride 1, 2, ..
        if self.steps not in counts:
            nearest = sorted(set(counts.tolist()), key=lambda count: abs(count - self.steps))[:2]
            raise UserError(
                f"steps {self.steps} is no number of equally spaced steps of {self._total}; the nearest are "
                f"{' and '.join(map(str, sorted(nearest)))}."
            )

    def down(self) -> np.ndarray:
        stride = next(s for s in range(1, self._total) if -(-self._total // s) == self.steps)
        kept = np.arange(0, self._total, stride)[::-1]
        return np.append(kept.astype(np.float64), self.process.t_data)


GRIDS: dict[str, type[Grid]] = {
    grid.name: grid for grid in (Karras, UniformT, UniformLambda, UniformLogRho, DdimLinspace, DdimRange, DdimSpace)
}
