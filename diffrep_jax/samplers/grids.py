"""Grids of times, computed on the host in float64: decreasing nodes for decoding, `upward` turns them for encoding."""

from collections.abc import Callable
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError

T_GAP = 1e-4  # a bridge is sampled from t = T - T_GAP: at T itself it has no noise and no drift


def karras(process: Any, steps: int, rho: float = 7.0) -> np.ndarray:
    """Nodes equidistant in t^(1/rho) from T - 1e-4 to t_min, then where x_t is x_0: [steps + 1] (EDM eq. 5)."""
    first, last = process.t_max - T_GAP, process.t_min
    ramp = np.linspace(0, 1, steps)
    nodes = (first ** (1 / rho) + ramp * (last ** (1 / rho) - first ** (1 / rho))) ** rho
    return np.append(nodes, process.t_data)


def ddim_linspace(process: Any, steps: int) -> np.ndarray:
    """PDAE's respacing of discrete steps: the `steps` + 1 integers of linspace(0, 999, steps + 1), downward."""
    last = _discrete_steps(process, steps, "ddim_linspace") - 1
    return np.linspace(0, last, steps + 1).astype(np.int64)[::-1].astype(np.float64)


def ddim_range(process: Any, steps: int) -> np.ndarray:
    """DiTi's respacing of discrete steps: range(0, 1000, 1000 // steps), downward, then where x_t is x_0.

    As there, it has more than `steps` nodes where `steps` does not divide 1000.
    """
    total = _discrete_steps(process, steps, "ddim_range")
    return np.append(np.arange(0, total, total // steps)[::-1].astype(np.float64), process.t_data)


GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "karras": karras,
    "ddim_linspace": ddim_linspace,
    "ddim_range": ddim_range,
}


def upward(nodes: np.ndarray, process: Any, name: str) -> np.ndarray:
    """The way back of a grid, for encoding: increasing nodes. x_0 counts as the state at the first of them.

    That of `ddim_range` ends in the noise alone, above all steps, as DiTi's encoding does.
    """
    increasing = nodes[nodes > process.t_data][::-1]
    return np.append(increasing, process.t_noise) if name == "ddim_range" else increasing


def _discrete_steps(process: Any, steps: int, name: str) -> int:
    """The number of steps of a discrete process; raises UserError where it has none, or fewer than asked for."""
    if not hasattr(process, "steps"):
        raise UserError(f"grid {name} takes every n-th of discrete steps, and this process has none; use grid=karras.")
    if steps > process.steps - (name == "ddim_linspace"):
        raise UserError(f"steps {steps} is above what grid {name} can take of {process.steps} steps; use fewer.")
    return process.steps
