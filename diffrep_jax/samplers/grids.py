"""Grids of times for one process, on the host in float64: `down` for decoding, `up` for encoding."""

import dataclasses
from typing import ClassVar

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.types import Process

T_GAP = 1e-4  # a bridge is sampled from t = T - T_GAP: at T itself it has no noise and no drift


@dataclasses.dataclass(frozen=True)
class Grid:
    """`steps` intervals of a process. Subclasses say `down`; raises UserError where they don't fit each other."""

    name: ClassVar[str]  # in a recipe

    process: Process
    steps: int

    def down(self) -> np.ndarray:
        """Decreasing times [steps + 1], the last one where x_t is x_0."""
        raise NotImplementedError

    def up(self) -> np.ndarray:
        """The way back, increasing: x_0 counts as the state at the first of them, as at t_data no drift exists.

        Raises UserError where that leaves no interval.
        """
        down = self.down()
        increasing = down[down > self.process.t_data][::-1]
        if len(increasing) < 2:
            raise UserError(f"steps {self.steps} leaves no step upward on this grid; use at least {self.steps + 1}.")
        return increasing


@dataclasses.dataclass(frozen=True)
class Karras(Grid):
    """Equidistant in t^(1/rho) from T - 1e-4 to t_min, then where x_t is x_0 (EDM eq. 5)."""

    name = "karras"

    rho: float = 7.0

    def down(self) -> np.ndarray:
        first, last = (t ** (1 / self.rho) for t in (self.process.t_max - T_GAP, self.process.t_min))
        nodes = (first + np.linspace(0, 1, self.steps) * (last - first)) ** self.rho
        return np.append(nodes, self.process.t_data)


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


GRIDS: dict[str, type[Grid]] = {grid.name: grid for grid in (Karras, DdimLinspace, DdimRange, DdimSpace)}
