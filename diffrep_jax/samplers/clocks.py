"""Clocks in which a denoiser is a polynomial, and the exact integrals of polynomials in them, on the host in float64.

The ODE of x_t = a x_T + b x_0 + c eps is that of D alone, with w = b/c (`exponential.py`):

    x_t/c_t = x_s/c_s + x_T (a_t/c_t - a_s/c_s) + integral from s to t of D dw

A clock u grows where t falls. With D a polynomial in u - u_s, all that a step needs are the moments

    M_k = c_t integral from s to t of (u - u_s)^k dw,      M_0 = b_t - b_s c_t/c_s.

u = lambda = log w: M_k = b_t integral from 0 to h of v^k e^(v - h) dv = b_t h^k - k M_(k-1).

u = -log rho, rho being the noise-to-signal ratio of the diffusion with an open end (DDBM): w^2 = 1/rho^2 - 1/rho_T^2 on
a bridge, so that integration by parts gives M_1; where a = 0 the two clocks are one.
"""

from collections.abc import Callable

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.samplers.drift import Interval
from diffrep_jax.types import Process

Clock = Callable[[Process, np.ndarray], np.ndarray]


def lambda_clock(process: Process, t: np.ndarray) -> np.ndarray:
    """log b/c, infinite where b or c is 0."""
    _, b, c = process.coefficients(t)
    with np.errstate(divide="ignore"):
        return np.log(b) - np.log(c)


def log_rho_clock(process: Process, t: np.ndarray) -> np.ndarray:
    """-log rho, infinite where x_t is x_0."""
    with np.errstate(divide="ignore"):
        return -np.log(process.rho(t))


CLOCKS: dict[str, Clock] = {"lambda": lambda_clock, "log_rho": log_rho_clock}


def moments(clock: str, process: Process, interval: Interval, degree: int) -> np.ndarray:
    """M_1 .. M_degree of each interval, [degree, n]; both ends have to have a finite w above 0."""
    reading = CLOCKS[clock]
    h = reading(process, interval.then.t) - reading(process, interval.now.t)
    if clock == "lambda":
        return np.array([interval.then.b * _decaying(k, h) for k in range(1, degree + 1)]).reshape(degree, *h.shape)
    if degree > 1:
        raise UserError(
            f"clock {clock} has weights of straight lines alone; use clock=lambda, or order 2 without corrector."
        )
    return np.array([_first_moment(process, interval, h)])[:degree]


def _decaying(k: int, h: np.ndarray) -> np.ndarray:
    """The integral from 0 to h of v^k e^(v - h) dv."""
    value = -np.expm1(-h)
    for j in range(1, k + 1):
        value = h**j - j * value
    term = h ** (k + 1) / (k + 1)  # the series of the same, for short steps, on which the recursion cancels
    series = np.zeros_like(h)
    for n in range(k + 2, k + 20):
        series, term = series + term, -term * h / n
    return np.where(np.abs(h) < 0.5, series, value)


def _first_moment(process: Process, interval: Interval, h: np.ndarray) -> np.ndarray:
    """c_t (w_t h - integral of w du); that integral is w - v_T atan(w / v_T), v_T = 1/rho_T."""
    now, then = interval.now, interval.then
    end = np.asarray(process.t_max)
    v_T = 1 / process.rho(end) if process.coefficients(end)[0] > 0 else 0.0
    turn = np.arctan2(then.b / then.c, v_T) - np.arctan2(now.b / now.c, v_T) if v_T else 0.0
    return then.b * h - (then.b - now.b * then.c / now.c) + then.c * v_T * turn
