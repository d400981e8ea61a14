"""The way between two encoded images, and the stochastic code: with it an image comes back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import samplers
from diffrep_jax.inference.edit import Encoded, between, slerp
from diffrep_jax.methods.base import AutoEncoder
from diffrep_jax.processes.base import per_image
from diffrep_jax.processes.gaussian import DiscreteVP
from tests.test_samplers import PROCESSES

RANDOM = np.random.default_rng(0)
NOISES = RANDOM.normal(size=(2, 3, 4, 4, 1)).astype(np.float32)


def norm(x):
    return np.linalg.norm(x.reshape(len(x), -1), axis=1)


def angle(a, b):
    return np.arccos((a * b).sum((1, 2, 3)) / norm(a) / norm(b))


def test_slerp_goes_along_the_arc_at_constant_speed():
    first, second = (x / norm(x)[:, None, None, None] for x in NOISES.astype(np.float64))
    whole = angle(first, second)
    for alpha in (0.25, 0.5, 0.8):
        point = slerp(first, second, alpha)
        np.testing.assert_allclose(norm(point), 1, rtol=1e-5)
        np.testing.assert_allclose(angle(first, point), alpha * whole, rtol=1e-4)
        np.testing.assert_allclose(angle(point, second), (1 - alpha) * whole, rtol=1e-4)


def test_slerp_begins_and_ends_at_its_ends_and_takes_equal_ones():
    np.testing.assert_allclose(slerp(*NOISES, 0.0), NOISES[0], atol=1e-6)
    np.testing.assert_allclose(slerp(*NOISES, 1.0), NOISES[1], atol=1e-6)
    np.testing.assert_allclose(slerp(NOISES[0], NOISES[0], 0.3), NOISES[0], rtol=1e-6)
    np.testing.assert_array_equal(slerp(0 * NOISES[0], NOISES[0] * 0, 0.3), 0 * NOISES[0])


def test_between_changes_the_dimensions_that_it_is_given():
    first, second = (Encoded(RANDOM.normal(size=(3, 6)), noise) for noise in NOISES)
    point = between(first, second, 0.25, slice(2, 4))
    np.testing.assert_array_equal(np.delete(point.z, [2, 3], 1), np.delete(first.z, [2, 3], 1))
    np.testing.assert_allclose(point.z[:, 2:4], first.z[:, 2:4] + 0.25 * (second.z - first.z)[:, 2:4])
    np.testing.assert_array_equal(point.stochastic_code, slerp(*NOISES, 0.25))
    assert between(Encoded(first.z, None), second, 0.5).stochastic_code is None


@dataclasses.dataclass(frozen=True)
class GaussianCodes(AutoEncoder):
    """Images are N(z, SPREAD^2) pixel by pixel, so that the best D is linear; x_T = -z where it has a say."""

    process: object

    def denoiser(self, variables, z, xT):
        mean = per_image(z[:, 0], xT)

        def denoise(x, t):
            a, b, c = self.process.coefficients(t)
            gain = b * SPREAD**2 / (b**2 * SPREAD**2 + c**2)
            return mean + gain * (x - a * xT - b * mean)

        return denoise


SPREAD = 0.1


@pytest.mark.parametrize("name", ["vp", "ve", "ddpm"])
def test_with_its_stochastic_code_an_image_comes_back(name):
    """For a bridge too, whose x_T follows from z; without it, what comes back is far from the image."""
    process, grid = (DiscreteVP(), "ddim_range") if name == "ddpm" else (PROCESSES[name], "karras")
    method = GaussianCodes(process)
    z = jnp.array([[0.2], [-0.3]])
    xT = -jnp.broadcast_to(per_image(z[:, 0], jnp.zeros((2, 4, 4, 1))), (2, 4, 4, 1))
    x0 = jnp.asarray(np.clip(np.asarray(z)[:, :, None, None] + SPREAD * RANDOM.normal(size=(2, 4, 4, 1)), -1, 1))
    ddim = samplers.build("exponential")
    up, down = (
        jnp.asarray(samplers.grid(grid, process, 1000 if name == "ddpm" else 250, encoding=way))
        for way in (True, False)
    )
    code = method.invert({}, x0, z, xT, ddim, up)
    back = method.decode({}, z, xT, ddim, down, stochastic_code=code)
    np.testing.assert_allclose(back, x0, atol=0.02)
    other = method.decode({}, z, xT, ddim, down, stochastic_code=code[::-1])
    assert np.abs(other - x0).mean() > 0.5 * SPREAD
    if name != "ddpm":
        alone = method.decode({}, z, xT, ddim, down)
        assert np.abs(alone - x0).mean() > 0.5 * SPREAD
