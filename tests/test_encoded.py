"""Edits of codes in closed form, and the stochastic code: with it an image comes back."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.inference.edit import between, block_dimensions, interpolate, move, slerp
from diffrep_jax.inference.encoded import Encoded, joined
from diffrep_jax.methods.base import AutoEncoder
from diffrep_jax.processes.base import per_image
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.samplers import Sampling
from tests.gaussian_data import PROCESSES

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


def test_between_leaves_what_it_is_given_as_it_was():
    first, second = (Encoded(RANDOM.normal(size=(1, 6)), None) for _ in range(2))
    before = first.z.copy(), second.z.copy()
    between(first, second, 0.5)
    np.testing.assert_array_equal((first.z, second.z), before)


def test_interpolation_goes_from_one_to_the_other_in_equal_steps():
    """z on the straight line, the stochastic code on the arc, one row a point."""
    zs = RANDOM.normal(size=(2, 1, 6)).astype(np.float32)
    ends = [4 * noise[:1] / norm(noise[:1])[0] for noise in NOISES]
    first, second = (Encoded(z, end) for z, end in zip(zs, ends, strict=True))
    way = interpolate(first, second, 5)
    assert len(way) == 5 and way.z.shape == (5, 6) and way.stochastic_code.shape == (5, 4, 4, 1)
    assert way.z.dtype == way.stochastic_code.dtype == np.float32
    np.testing.assert_allclose(way.z, zs[0] + np.linspace(0, 1, 5)[:, None] * (zs[1] - zs[0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(way.stochastic_code[[0, -1]], np.concatenate(ends), atol=1e-6)
    steps = angle(way.stochastic_code[:-1], way.stochastic_code[1:])
    np.testing.assert_allclose(steps, np.full(4, angle(*ends)[0] / 4), rtol=1e-4)
    np.testing.assert_allclose(norm(way.stochastic_code), 4, rtol=1e-5)
    some = interpolate(first, second, 3, slice(0, 2))
    np.testing.assert_array_equal(some.z[:, 2:], np.repeat(zs[0][:, 2:], 3, axis=0))
    np.testing.assert_allclose(some.z[-1, :2], zs[1][0, :2], rtol=1e-6)
    assert interpolate(first, Encoded(zs[1]), 2).stochastic_code is None
    for points in (1, 0, -3):
        with pytest.raises(UserError, match=f"points {points} is no whole number in .2,"):
            interpolate(first, second, points)


def test_block_dimensions_are_those_that_the_blocks_own():
    ends = np.array([2, 3, 7, 12])
    owned = {(0, 1): range(2), (1, 1): range(2, 3), (1, 2): range(2, 7), (3, 1): range(7, 12), (0, 4): range(12)}
    for (start, width), dimensions in owned.items():
        assert list(range(12))[block_dimensions(ends, start, width)] == list(dimensions)


@pytest.mark.parametrize("start, width", [(-1, 1), (0, 0), (0, -1), (4, 1), (3, 2), (0, 5)])
def test_blocks_that_there_are_not_are_refused(start, width):
    with pytest.raises(UserError, match=f"no {width} blocks from {start} on; this model has 4, numbered from 0"):
        block_dimensions(np.array([2, 3, 7, 12]), start, width)


def test_a_move_along_an_axis_adds_scale_times_the_root_of_d():
    """Of a code of d dimensions with unit deviations, whose norm is sqrt(d); the stochastic code stays."""
    encoded = Encoded(RANDOM.normal(size=(3, 16)).astype(np.float32), NOISES[0])
    moved = move(encoded, np.eye(16)[5], 0.25)
    expected = encoded.z.copy()
    expected[:, 5] += 1.0
    np.testing.assert_allclose(moved.z, expected, rtol=1e-6)
    assert moved.z.dtype == np.float32 and moved.stochastic_code is encoded.stochastic_code
    np.testing.assert_array_equal(move(encoded, np.eye(16)[5], 0.0).z, encoded.z)
    back = move(moved, np.eye(16)[5], -0.25)
    np.testing.assert_allclose(back.z, encoded.z, atol=1e-6)


def test_rows_of_codes_are_cut_and_joined():
    whole = Encoded(RANDOM.normal(size=(3, 6)), NOISES[0])
    parts = [whole[:1], whole[1:]]
    assert [len(part) for part in parts] == [1, 2]
    again = joined(parts)
    np.testing.assert_array_equal(again.z, whole.z)
    np.testing.assert_array_equal(again.stochastic_code, whole.stochastic_code)
    assert joined([parts[0], Encoded(parts[1].z)]).stochastic_code is None
    assert whole.with_z(-whole.z).stochastic_code is whole.stochastic_code


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
    how = Sampling(grid=grid, steps=1000 if name == "ddpm" else 250)
    stepper, up, down = how.stepper(), how.plan(process, upward=True), how.plan(process)
    last, first = how.nodes(process, upward=True)[-1], how.nodes(process)[0]
    code = method.invert({}, x0, z, xT, stepper, up) - process.coefficients(last)[0] * xT
    start = process.coefficients(first)[0] * xT
    back = method.decode({}, z, xT, start + code, stepper, down)
    np.testing.assert_allclose(back, x0, atol=0.02)
    other = method.decode({}, z, xT, start + code[::-1], stepper, down)
    assert np.abs(other - x0).mean() > 0.5 * SPREAD
    if name != "ddpm":
        alone = method.decode({}, z, xT, xT, stepper, down)
        assert np.abs(alone - x0).mean() > 0.5 * SPREAD
