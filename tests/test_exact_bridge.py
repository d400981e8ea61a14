"""Samples of a bridge in float32 against the same steps in float64, written down from the bridge's definition.

DDBM (2309.16948, eq. 8 and 9) for a process with signal alpha and noise alpha rho that is held at x_T:

    ODE  dx/dt = f x - g^2 (score / 2 - h)        SDE  dx = (f x - g^2 (score - h)) dt + g dw
    score = -(x - mean) / variance,   mean = r alpha/alpha_T x_T + (1 - r) alpha x_0,   variance = alpha^2 rho^2 (1 - r)
    h = (alpha/alpha_T x_T - x) / (alpha^2 (rho_T^2 - rho^2)),                          r = rho^2 / rho_T^2

with f = (log alpha)' and g^2 = alpha^2 (rho^2)'. Only the denoiser is shared, and it is asked in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.inference.model import Model
from diffrep_jax.samplers import Sampling
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.sharding import make_mesh
from tests.gaussian_data import PROCESSES, endless, images, solve
from tests.networks import random_values, small_dbae

CASES = [("euler", 0.0), ("heun", 0.0), ("euler", 0.33), ("heun", 0.33)]
STEPS = 4


def times(t_min, t_max, rho=7):
    """EDM's nodes (eq. 5) from T - 1e-4, and 0."""
    first, last = (t_max - 1e-4) ** (1 / rho), t_min ** (1 / rho)
    return [*((first + i / (STEPS - 1) * (last - first)) ** rho for i in range(STEPS)), 0.0]


class VE:
    """alpha = 1, rho = t up to 80."""

    T, nodes = 80.0, times(0.002, 80.0)

    def alpha_rho2(self, t):
        return 1.0, t**2

    def f_g2(self, t):
        return 0.0, 2 * t


class VP:
    """alpha^2 = e^-u and rho^2 = e^u - 1 for u = 0.1 t + t^2, up to 1."""

    T, nodes = 1.0, times(1e-4, 1.0)

    def alpha_rho2(self, t):
        u = 0.1 * t + t**2
        return np.exp(-u / 2), np.expm1(u)

    def f_g2(self, t):
        beta = 0.1 + 2 * t
        return -beta / 2, beta


BRIDGES = {"ve": VE(), "vp": VP()}


def drift(bridge, denoised, x, xT, t, stochastic=False):
    (alpha, rho2), (alpha_T, rho2_T) = bridge.alpha_rho2(t), bridge.alpha_rho2(bridge.T)
    (f, g2), r = bridge.f_g2(t), rho2 / rho2_T
    mean = r * alpha / alpha_T * xT + (1 - r) * alpha * denoised
    score = -(x - mean) / (alpha**2 * rho2 * (1 - r))
    h = (alpha / alpha_T * xT - x) / (alpha**2 * (rho2_T - rho2))
    return f * x - g2 * (score * (1 if stochastic else 0.5) - h)


def exact(bridge, denoise, start, xT, sampler, ratio, noise):
    """The states after each step down, in float64; the last step is Euler's. noise: [steps, ...]"""
    states = []
    x, xT = start.astype(np.float64), xT.astype(np.float64)

    def asked(x, t):
        return np.asarray(denoise(jnp.asarray(x, jnp.float32), jnp.float32(t)), np.float64)

    for i, (now, then) in enumerate(zip(bridge.nodes[:-1], bridge.nodes[1:], strict=True)):
        if ratio:
            middle = now + ratio * (then - now)
            dt, g2 = middle - now, bridge.f_g2(now)[1]
            x = x + dt * drift(bridge, asked(x, now), x, xT, now, stochastic=True) + np.sqrt(g2 * -dt) * noise[i]
            now = middle
        slope = drift(bridge, asked(x, now), x, xT, now)
        ahead = x + (then - now) * slope
        if sampler == "heun" and then > 0:
            slope = (slope + drift(bridge, asked(ahead, then), ahead, xT, then)) / 2
        x = x + (then - now) * slope
        states.append(x)
    return states


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.parametrize("sampler, ratio", CASES)
def test_a_smooth_denoiser(name, sampler, ratio):
    xT, noise = np.asarray(images(0, size=4)), np.asarray(images(1, n=STEPS * 2, size=4)).reshape(STEPS, 2, 4, 4, 1)
    scale = PROCESSES[name].t_max

    @jax.jit
    def denoise(x, t):
        return jnp.tanh(0.4 * xT + 0.3 * jnp.sin(x / (1 + t)) - 0.2 * t / scale)

    how = Sampling(sampler, "karras", STEPS, ratio)
    np.testing.assert_allclose(how.nodes(PROCESSES[name]), BRIDGES[name].nodes, rtol=1e-12)
    problem, draws, nodes = Problem(denoise, xT), jnp.asarray(noise), BRIDGES[name].nodes
    stepper, draw = how.stepper(), lambda i: draws[i]
    expected = exact(BRIDGES[name], denoise, xT, xT, sampler, ratio, noise)[-1]
    assert np.abs(expected).max() > 0.3
    out = solve(stepper, PROCESSES[name], problem, jnp.asarray(xT), nodes, draw)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-4)
    # The first step, which begins next to T: from x_T, and off it, where the drift is steep. The end forgets it.
    for start in (xT, xT + 0.01 * noise[-1]):
        expected = exact(BRIDGES[name], denoise, start, xT, sampler, ratio, noise)[0]
        first = solve(endless(stepper), PROCESSES[name], problem, jnp.asarray(start), nodes[:2], draw)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(first / scale, expected / scale, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def ve_model():
    """A DBAE on the VE bridge with random weights."""
    unet = {"width": 8, "mult": (1,), "blocks": 1, "attention": (), "head_dim": 4, "dropout": 0.0}
    method = small_dbae(8, bridge="ve", unet=unet)
    variables = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})
    return Model(method, random_values(variables), make_mesh(devices=jax.local_devices()), Sampling(steps=STEPS))


@pytest.mark.parametrize("sampler, ratio", [("euler", 0.0), ("heun", 0.0), ("heun", 0.33)])
def test_a_dbae_on_the_ve_bridge(ve_model, sampler, ratio):
    """As it is decoded, D clipped, from x_T and from a stochastic code, to which churn gives way."""
    random = np.random.default_rng(0)
    z = random.standard_normal((2, 12)).astype(np.float32)
    xT, code = random.standard_normal((2, 2, 8, 8, 1)).astype(np.float32)
    noise = random.standard_normal((STEPS, 2, 8, 8, 1)).astype(np.float32)

    def denoise(x, t):
        return np.clip(ve_model.denoise(np.asarray(x), np.asarray(t), z, xT), -1, 1)

    how = Sampling(sampler, "karras", STEPS, ratio)
    a = BRIDGES["ve"].nodes[0] ** 2 / 80.0**2
    for start, stochastic_code, churn in ((xT, None, ratio), (a * xT + 0.01 * code, 0.01 * code, 0.0)):
        expected = exact(BRIDGES["ve"], denoise, start, xT, sampler, churn, noise)[-1]
        out = ve_model.decode(z, xT, how, stochastic_code, noise=noise.swapaxes(0, 1))
        assert expected.std() > 0.1
        np.testing.assert_allclose(out, np.clip(expected, -1, 1), rtol=0, atol=2e-4)
