"""The reverse-time drifts of x_t = a x_T + b x_0 + c eps, given an estimate of x_0.

    ODE  dx/dt = a' x_T + b' x_0 + c' eps,   eps = (x - a x_T - b x_0) / c
    SDE  the ODE drift - g2/2 score,         score = -eps / c,   with noise sqrt(g2 |dt|)

Equal to the drifts of DDBM (eq. 8 and 9, guidance 1) for the VE and the VP bridge. What the process says at the nodes
of a grid is computed on the host in float64: near t = T a float32 holds T - t to some percent only.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array, Image, Process

Planned = Any  # numbers of a plan: NumPy's float64 on the host, JAX's in the loop
Denoiser = Callable[[Image, Array], Image]  # D(x_t, t): x_t [b, h, w, c], t a scalar -> an estimate of x_0


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a sampler solves: a denoiser D(x_t, t) and the fixed end x_T."""

    denoiser: Denoiser
    xT: Image


class Node(NamedTuple):
    """What a process says at one time, or at many: numbers of one shape."""

    t: Any
    a: Any
    b: Any
    c: Any
    a_complement: Any
    da: Any
    db: Any
    dc: Any
    g2: Any


class Interval(NamedTuple):
    """A step from the time of `now` to that of `then`, dt = t_then - t_now."""

    now: Node
    then: Node
    dt: Any


def nodes_at(process: Process, times: np.ndarray) -> Node:
    """The nodes at these times [n], float64."""
    t = np.asarray(times, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # the ends of a process have no drift, and no step reads it
        return Node(t, *process.coefficients(t), process.a_complement(t), *process.slopes(t), process.g2(t))


def intervals(process: Process, starts: np.ndarray, ends: np.ndarray) -> Interval:
    """From each of `starts` [n] to the same of `ends` [n]."""
    return Interval(nodes_at(process, starts), nodes_at(process, ends), np.asarray(ends - starts))


def ode_drift(denoised: Image, x: Image, xT: Image, node: Node) -> Image:
    """dx/dt at (x, t) for the estimate `denoised` of x_0."""
    return node.da * xT + node.db * denoised + node.dc * noise_of(denoised, x, xT, node)


def sde_drift(denoised: Image, x: Image, xT: Image, node: Node) -> Image:
    """The reverse-time SDE's drift at (x, t); its noise has the rate sqrt(g2)."""
    score = -noise_of(denoised, x, xT, node) / node.c
    return ode_drift(denoised, x, xT, node) - node.g2 / 2 * score


def noise_of(denoised: Image, x: Image, xT: Image, node: Node) -> Image:
    """eps = (x - a x_T - b x_0) / c. Near T, where x is near x_T, x - a x_T is (x - x_T) + (1 - a) x_T."""
    rest = jnp.where(node.a > 0.5, (x - xT) + node.a_complement * xT, x - node.a * xT)
    return (rest - node.b * denoised) / node.c
