"""The discrete, variance preserving diffusion of DDPM (Ho et al. 2020, arXiv 2006.11239, section 2): a = 0.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,     alpha_bar_t = prod_{s <= t} (1 - beta_s)

Steps are numbered 0 .. 999, as the networks of ADM, PDAE and DiTi see them; the paper's numbers are one higher. So x_0
itself is at t = -1, where alpha_bar = 1. One step above the last one stands the noise alone, alpha_bar = 0: DiTi's
encoding ends there. Between two steps log alpha_bar is linear, so that the rate -d log alpha_bar / dt is constant there
and samplers in continuous time have a process to solve.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from diffrep_jax.processes.base import namespace


@dataclasses.dataclass(frozen=True)
class DiscreteVP:
    """`steps` betas, equidistant from beta_first to beta_last. The end x_T plays no part, as a = 0."""

    steps: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02

    t_data = -1.0
    t_min = 0.0

    @property
    def t_max(self) -> float:
        return self.steps - 1.0

    @property
    def t_noise(self) -> float:
        """The time above all steps, at which x_t is eps."""
        return float(self.steps)

    def coefficients(self, t: Any) -> tuple[Any, Any, Any]:
        xp = namespace(t)
        log_alpha_bar, pure_noise = self._log_alpha_bar(t), t > self.t_max
        b = xp.where(pure_noise, 0, xp.exp(log_alpha_bar / 2))
        c = xp.where(pure_noise, 1, xp.sqrt(-xp.expm1(log_alpha_bar)))
        return xp.zeros_like(b), b, c

    def a_complement(self, t: Any) -> Any:
        return namespace(t).ones_like(t)

    def slopes(self, t: Any) -> tuple[Any, Any, Any]:
        _, b, c = self.coefficients(t)
        half = self._line(t)[1] / 2  # of log alpha_bar; b^2 + c^2 = 1
        return namespace(t).zeros_like(b), half * b, -half * b**2 / c

    def g2(self, t: Any) -> Any:
        return -self._line(t)[1]

    def rho(self, t: Any) -> Any:
        _, b, c = self.coefficients(t)
        return c / b

    def alpha_bar(self, t: Any) -> Any:
        """b^2, for t in [-1, 999]."""
        return namespace(t).exp(self._log_alpha_bar(t))

    def _log_alpha_bar(self, t: Any) -> Any:
        start, slope, beyond = self._line(t)
        return start + beyond * slope

    def _line(self, t: Any) -> tuple[Any, Any, Any]:
        """(log alpha_bar at the step below t, its slope from there, the distance from there)."""
        xp = namespace(t)
        t = xp.asarray(t)
        table = xp.asarray(_log_alpha_bars(self), t.dtype)  # that of step i is at i + 1
        below = xp.clip(xp.floor(t), self.t_data, self.t_max - 1)
        i = below.astype(xp.int32) + 1
        return table[i], table[i + 1] - table[i], t - below


@functools.cache
def _log_alpha_bars(process: DiscreteVP) -> np.ndarray:
    """log alpha_bar at -1, 0, .., steps - 1 in float64."""
    betas = np.linspace(process.beta_first, process.beta_last, process.steps)
    return np.append(0.0, np.cumsum(np.log1p(-betas)))
