"""Diffusion bridges between x_0 and a fixed x_T (DDBM, Zhou et al. 2024, arXiv 2309.16948, section 3 and table 1).

A diffusion with signal alpha(t) and noise alpha(t) rho(t), conditioned on its end x_T, has the marginal

    x_t = a x_T + b x_0 + c eps,     a = (alpha / alpha_T) rho^2 / rho_T^2,
                                     b = alpha (1 - rho^2 / rho_T^2),     c = alpha rho sqrt(1 - rho^2 / rho_T^2).

VE: alpha = 1, rho = t. 1 - t^2 / T^2 = (T - t)(T + t) / T^2 does not cancel near T.

VP: alpha = (1 + rho^2)^(-1/2), rho^2 = exp(u) - 1, u = beta_min t + beta_d t^2 / 2. Written in hyperbolic sines,
with r = u_T - u = (T - t)(beta_min + beta_d (T + t) / 2), nothing cancels in float32 either:

    a = sinh(u/2) / sinh(u_T/2),   b = sinh(r/2) / sinh(u_T/2),   c^2 = 2 sinh(u/2) sinh(r/2) / sinh(u_T/2),
    1 - a = 2 cosh((u_T + u)/4) sinh(r/4) / sinh(u_T/2).

The slopes follow with u' = -r' = beta_min + beta_d t and c c' = sinh(u_T/2) (a b)'.
"""

import dataclasses
import math
from typing import Any

from diffrep_jax.processes.base import namespace


@dataclasses.dataclass(frozen=True)
class VEBridge:
    """Variance exploding: rho = t up to T = 80."""

    t_min: float = 0.002
    t_max: float = 80.0

    t_data = 0.0
    steps = None

    @property
    def t_noise(self) -> float:
        return self.t_max

    def coefficients(self, t: Any) -> tuple[Any, Any, Any]:
        a = (t / self.t_max) ** 2
        b = (self.t_max - t) * (self.t_max + t) / self.t_max**2
        return a, b, t * namespace(t).sqrt(b)

    def a_complement(self, t: Any) -> Any:
        return (self.t_max - t) * (self.t_max + t) / self.t_max**2

    def slopes(self, t: Any) -> tuple[Any, Any, Any]:
        root = namespace(t).sqrt((self.t_max - t) * (self.t_max + t)) / self.t_max
        da = 2 * t / self.t_max**2
        return da, -da, root - t**2 / (self.t_max**2 * root)

    def g2(self, t: Any) -> Any:
        return 2 * t

    def rho(self, t: Any) -> Any:
        return t


@dataclasses.dataclass(frozen=True)
class VPBridge:
    """Variance preserving: a linear beta(t) = beta_min + beta_d t up to T = 1."""

    t_min: float = 1e-4
    t_max: float = 1.0
    beta_min: float = 0.1
    beta_d: float = 2.0

    t_data = 0.0
    steps = None

    @property
    def t_noise(self) -> float:
        return self.t_max

    def coefficients(self, t: Any) -> tuple[Any, Any, Any]:
        xp, end = namespace(t), math.sinh(self._u_end / 2)
        a, b = xp.sinh(self._u(t) / 2) / end, xp.sinh(self._rest(t) / 2) / end
        return a, b, xp.sqrt(2 * end * a * b)

    def a_complement(self, t: Any) -> Any:
        xp = namespace(t)
        return 2 * xp.cosh((self._u_end + self._u(t)) / 4) * xp.sinh(self._rest(t) / 4) / math.sinh(self._u_end / 2)

    def slopes(self, t: Any) -> tuple[Any, Any, Any]:
        xp, end = namespace(t), math.sinh(self._u_end / 2)
        a, b, c = self.coefficients(t)
        half = self.g2(t) / (2 * end)  # u' / (2 sinh(u_T/2)), as u' is g2
        da, db = half * xp.cosh(self._u(t) / 2), -half * xp.cosh(self._rest(t) / 2)
        return da, db, end * (da * b + a * db) / c

    @property
    def _u_end(self) -> float:
        return self.t_max * (self.beta_min + self.beta_d * self.t_max / 2)

    def _u(self, t: Any) -> Any:
        return t * (self.beta_min + self.beta_d * t / 2)

    def _rest(self, t: Any) -> Any:
        """u_T - u."""
        return (self.t_max - t) * (self.beta_min + self.beta_d * (self.t_max + t) / 2)

    def g2(self, t: Any) -> Any:
        return self.beta_min + self.beta_d * t

    def rho(self, t: Any) -> Any:
        xp = namespace(t)
        return xp.sqrt(xp.expm1(self._u(t)))
