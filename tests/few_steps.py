"""Gaussian data along any grid: the exact solution of the ODE, and stretches of lambda; all processes by name."""

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.samplers.clocks import lambda_clock
from tests.gaussian_data import DDPM, PROCESSES, gaussian_problem, images, moments, solve

ALL = PROCESSES | {"ddpm": DDPM}


def stretch(process, low, high, steps):
    """Times at which lambda is equidistant from low to high, found by interpolation in a table of it."""
    t = process.t_max - np.geomspace(1e-4, process.t_max - process.t_min, 400_001)
    return np.interp(np.linspace(low, high, steps + 1), lambda_clock(process, t), t)


def error_on(stepper, process, nodes):
    """Of the state at the last node, for a start on the exact solution: it keeps a Gaussian's standard scores."""
    xT, scores = images(0), images(1)
    mean, std = moments(process, xT, nodes[0])
    run = jax.jit(lambda x: solve(stepper, process, gaussian_problem(process, xT), x, nodes))
    (end_mean, end_std), end = moments(process, xT, nodes[-1]), run(mean + std * scores)
    return float(jnp.abs(end - end_mean - end_std * scores).max())


def slope(stepper, process, low, high, steps=(32, 64, 128)):
    """The order that errors fall with, between the two longest of these numbers of steps."""
    errors = [error_on(stepper, process, stretch(process, low, high, n)) for n in steps[-2:]]
    return -np.diff(np.log(errors))[0] / np.diff(np.log(steps[-2:]))[0]
