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


def build(name: str, churn_step_ratio: float = 0.0, eta: float = 0.0) -> Stepper:
    """The sampler `name`, with churn before each step where the ratio is above 0; `eta` is its own fresh noise.

    Raises UserError for an unknown name, a ratio outside [0, 1), a negative eta, or an eta that it has no use for.
    """
    from diffrep_jax.samplers.churn import Churn

    if name not in names():
        raise unknown("sampler", name, names())
    if not 0 <= churn_step_ratio < 1:
        raise UserError(f"churn_step_ratio {churn_step_ratio} is outside [0, 1); 0 turns churn off.")
    if not eta >= 0:
        raise UserError(f"eta {eta} is below 0; 0 draws no noise, 1 is ancestral sampling.")
    cls = importlib.import_module(f"diffrep_jax.samplers.{name}").Sampler
    if hasattr(cls, "eta"):
        sampler = cls(eta=eta)
    elif eta == 0:
        sampler = cls()
    else:
        raise UserError(f"eta {eta} is of no use to sampler {name}; use sampler=exponential, or eta=0.")
    if churn_step_ratio > 0 and sampler.stochastic:
        raise UserError(f"eta {eta} and churn_step_ratio {churn_step_ratio} both add noise; set one of them to 0.")
    return Churn(sampler, churn_step_ratio) if churn_step_ratio > 0 else sampler


def grid(name: str, process: Any, steps: int, encoding: bool = False) -> Any:
    """The grid `name` with `steps` intervals: [steps + 1] decreasing times to where x_t is x_0; `encoding`: the way up.

    Raises UserError for an unknown name, fewer than one step, or a grid that does not fit the process.
    """
    from diffrep_jax.samplers.grids import GRIDS, upward

    if name not in GRIDS:
        raise unknown("grid", name, GRIDS)
    if steps < 1:
        raise UserError(f"steps {steps} is below 1: a sampler needs at least one step.")
    nodes = GRIDS[name](process, steps)
    if not encoding:
        return nodes
    if len(nodes := upward(nodes, process, name)) < 2:
        raise UserError(f"steps {steps} leaves no step upward on grid {name}; use at least {steps + 1}.")
    return nodes
