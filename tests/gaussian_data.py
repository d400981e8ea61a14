"""Images whose pixels are Gaussian: their denoiser and their ODE have closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.processes.bridge import VEBridge, VPBridge
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.samplers import driver
from diffrep_jax.samplers.drift import Problem

DITI = np.load(Path(__file__).parent / "golden" / "diti_tiny.npz")
PROCESSES = {"vp": VPBridge(), "ve": VEBridge()}
DDPM = DiscreteVP()
SMOOTH = {"vp": (0.9, 0.2), "ve": (64.0, 16.0)}  # a stretch of time away from the singular ends
LEVELS = {"vp": (0.9, 0.3), "ve": (60.0, 5.0), "ddpm": (900.0, 250.0)}  # two times a process
MEAN, STD = 0.3, 0.5  # of x_0


def moments(process, xT, t):
    """The mean and the standard deviation of x_t given x_T, for x_0 ~ N(MEAN, STD^2)."""
    a, b, c = process.coefficients(jnp.asarray(t))
    return a * xT + b * MEAN, jnp.sqrt(b**2 * STD**2 + c**2)


def gaussian_problem(process, xT):
    """The exact denoiser E[x_0 | x_t, x_T]."""

    def denoiser(x, t):
        a, b, c = process.coefficients(t)
        return MEAN + STD**2 * b / (b**2 * STD**2 + c**2) * (x - a * xT - b * MEAN)

    return Problem(denoiser, xT)


def constant_problem(shape=(2, 2, 2, 1), record=lambda: None):
    """D = 0, calling `record` in Python at each evaluation."""

    def denoiser(x, t):
        jax.debug.callback(record)
        return jnp.zeros_like(x)

    return Problem(denoiser, jnp.ones(shape))


def solve(stepper, process, problem, x, nodes, noise=None):
    """x taken along the nodes, in the order that they have."""
    return driver.sample(stepper, problem, x, driver.plan(stepper, process, np.asarray(nodes)), noise)


def endless(stepper):
    """The stepper without its special last step, for a stretch that ends where the process still has a drift."""
    cls = type(stepper)
    return type(cls.__name__, (cls,), {"last": cls.step})(**vars(stepper))


def images(seed, n=2, size=2):
    return jax.random.normal(jax.random.key(seed), (n, size, size, 1))


def keys(n, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))
