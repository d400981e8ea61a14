"""Grids of times, computed on the host in float64: `steps` decreasing nodes and then 0."""

from typing import Any

import numpy as np

T_GAP = 1e-4  # sampling starts at t = T - T_GAP: at T itself the bridge has no noise and no drift


def karras(process: Any, steps: int, rho: float = 7.0) -> np.ndarray:
    """Nodes equidistant in t^(1/rho) from T - 1e-4 to t_min, then 0: [steps + 1] (EDM eq. 5)."""
    first, last = process.t_max - T_GAP, process.t_min
    ramp = np.linspace(0, 1, steps)
    nodes = (first ** (1 / rho) + ramp * (last ** (1 / rho) - first ** (1 / rho))) ** rho
    return np.append(nodes, 0.0)


GRIDS = {"karras": karras}
