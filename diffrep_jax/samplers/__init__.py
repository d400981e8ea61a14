"""Samplers by file name: `build("heun")` gives `samplers/heun.py`'s `Sampler`."""

import importlib
import pathlib
from typing import Any

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.samplers.driver import Stepper

_SHARED = {"__init__", "driver", "drift", "grids", "churn"}


def names() -> list[str]:
    """The samplers that a config may name."""
    return sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py") if p.stem not in _SHARED)


def build(name: str, churn_step_ratio: float = 0.0) -> Stepper:
    """The sampler `name`, with churn before each step where the ratio is above 0.

    Raises UserError for an unknown name or a ratio outside [0, 1).
    """
    from diffrep_jax.samplers.churn import Churn

    if name not in names():
        raise unknown("sampler", name, names())
    if not 0 <= churn_step_ratio < 1:
        raise UserError(f"churn_step_ratio {churn_step_ratio} is outside [0, 1); 0 turns churn off.")
    sampler = importlib.import_module(f"diffrep_jax.samplers.{name}").Sampler()
    return Churn(sampler, churn_step_ratio) if churn_step_ratio > 0 else sampler


def grid(name: str, process: Any, steps: int) -> Any:
    """The grid `name` with `steps` intervals: [steps + 1] decreasing times that end at 0."""
    from diffrep_jax.samplers.grids import GRIDS

    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    if steps < 1:
        raise UserError(f"steps {steps} is below 1: a sampler needs at least one step.")
    return GRIDS[name](process, steps)
