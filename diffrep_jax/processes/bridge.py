"""Diffusion bridges between x_0 and a fixed x_T (DDBM, Zhou et al. 2024, arXiv 2309.16948, section 3 and table 1).

A diffusion with signal alpha(t) and noise alpha(t) rho(t), conditioned on its end x_T, has the marginal

    x_t = a x_T + b x_0 + c eps,     a = (alpha / alpha_T) rho^2 / rho_T^2,
                                     b = alpha (1 - rho^2 / rho_T^2),     c = alpha rho sqrt(1 - rho^2 / rho_T^2).

VE: alpha = 1, rho = t. 1 - t^2 / T^2 = (T - t)(T + t) / T^2 does not cancel near T.

VP: alpha = (1 + rho^2)^(-1/2), rho^2 = exp(u) - 1, u = beta_min t + beta_d t^2 / 2. Written in hyperbolic sines,
with r = u_T - u = (T - t)(beta_min + beta_d (T + t) / 2), nothing cancels in float32 either:

    a = sinh(u/2) / sinh(u_T/2),   b = sinh(r/2) / sinh(u_T/2),   c^2 = 2 sinh(u/2) sinh(r/2) / sinh(u_T/2),
    1 - a = 2 cosh((u_T + u)/4) sinh(r/4) / sinh(u_T/2).
"""

import dataclasses
import math

import jax.numpy as jnp

from diffrep_jax.types import Array


@dataclasses.dataclass(frozen=True)
class VEBridge:
    """Variance exploding: rho = t up to T = 80."""

    t_min: float = 0.002
    t_max: float = 80.0

    t_data = 0.0

    def coefficients(self, t: Array) -> tuple[Array, Array, Array]:
        a = (t / self.t_max) ** 2
        b = (self.t_max - t) * (self.t_max + t) / self.t_max**2
        return a, b, t * jnp.sqrt(b)

    def a_complement(self, t: Array) -> Array:
        return (self.t_max - t) * (self.t_max + t) / self.t_max**2

    def g2(self, t: Array) -> Array:
        return 2 * t


@dataclasses.dataclass(frozen=True)
class VPBridge:
    """Variance preserving: a linear beta(t) = beta_min + beta_d t up to T = 1."""

    t_min: float = 1e-4
    t_max: float = 1.0
    beta_min: float = 0.1
    beta_d: float = 2.0

    t_data = 0.0

    def coefficients(self, t: Array) -> tuple[Array, Array, Array]:
        end = math.sinh(self._u_end / 2)
        a, b = jnp.sinh(self._u(t) / 2) / end, jnp.sinh(self._rest(t) / 2) / end
        return a, b, jnp.sqrt(2 * end * a * b)

    def a_complement(self, t: Array) -> Array:
        return 2 * jnp.cosh((self._u_end + self._u(t)) / 4) * jnp.sinh(self._rest(t) / 4) / math.sinh(self._u_end / 2)

    @property
    def _u_end(self) -> float:
        return self.t_max * (self.beta_min + self.beta_d * self.t_max / 2)

    def _u(self, t: Array) -> Array:
        return t * (self.beta_min + self.beta_d * t / 2)

    def _rest(self, t: Array) -> Array:
        """u_T - u."""
        return (self.t_max - t) * (self.beta_min + self.beta_d * (self.t_max + t) / 2)

    def g2(self, t: Array) -> Array:
        return self.beta_min + self.beta_d * t
