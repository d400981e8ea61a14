"""Trajectory interpolation: what two codes do is mixed at each step, for methods that have something to mix."""

import json

import numpy as np
import pytest

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import edit
from diffrep_jax.inference.encoded import Encoded, joined
from diffrep_jax.methods.base import Mixture
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from tests.coded_models import opened, small_config
from tests.tiny import tiny_config

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    return opened(small_config("diti"), std=0.3)


def test_the_denoiser_of_a_mixture_lies_on_the_line_between_those_of_its_codes(model):
    """D is linear in G, and G is not linear in z."""
    z1, z2 = RANDOM.normal(size=(2, 3, 16)).astype(np.float32)
    x, t, share = RANDOM.normal(size=(3, 8, 8, 1)).astype(np.float32), np.float32(400), np.float32([0, 0.25, 1])
    denoise = [model.method.denoiser(model.variables, z, x)(x, t) for z in (z1, z2, Mixture(z1, z2, share))]
    first, second, mixed = map(np.asarray, denoise)
    expected = first + share[:, None, None, None] * (second - first)
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-4)
    between = model.method.denoiser(model.variables, 0.75 * z1 + 0.25 * z2, x)(x, t)
    assert np.abs(np.asarray(between)[1] - mixed[1]).max() > 100 * np.abs(mixed - expected).max()


def test_a_way_along_trajectories_has_the_reconstructions_as_its_ends(model, tmp_path):
    name = type(model.method).__name__.lower()
    config = small_config(name)
    with config.unlocked():
        config.tasks.interpolate.update(points=4, trajectory=True, gif=False, batch_size=4)
    base.build("interpolate", config.tasks.interpolate, {}).run(model, Run.at(tmp_path, config))
    numbers = json.loads((tmp_path / "interpolate" / "metrics.json").read_text())
    with np.load(tmp_path / "interpolate" / "arrays.npz") as arrays:
        ends, images = arrays["ends"], arrays["images"].astype(int)
    assert numbers["trajectory"] is True
    z = model.encode(ends)
    whole = to_uint8(model.decode(z[[0, 1, 0, 1]], numbers=np.zeros(4, np.int32))).astype(int)
    assert np.abs(images[[0, -1]] - whole[:2]).max() <= 1
    straight = to_uint8(model.interpolate(*ends, points=4)).astype(int)
    assert np.abs(straight[[0, -1]] - images[[0, -1]]).max() <= 1 and np.abs(straight[1] - images[1]).max() > 1
    by_model = to_uint8(model.interpolate(*ends, points=4, trajectory=True)).astype(int)
    assert np.abs(by_model - images).max() <= 1


def test_rows_of_a_mixture_stay_together():
    one, two = (Encoded(RANDOM.normal(size=(1, 4))) for _ in range(2))
    way = edit.along_trajectories(one, two, 5)
    assert way.mixture is not None
    np.testing.assert_array_equal(way.mixture.share, np.float32([0, 0.25, 0.5, 0.75, 1]))
    again = joined([way[:2], way[2:]])
    for whole, part in zip(way.mixture, again.mixture, strict=True):
        np.testing.assert_array_equal(whole, part)
    assert joined([way, one]).mixture is None
    np.testing.assert_allclose(way.z, edit.interpolate(one, two, 5).z)


def test_methods_without_gradients_to_mix_are_refused():
    tiny_model = opened(tiny_config())
    images = np.zeros((2, 8, 8, 1), np.uint8)
    with pytest.raises(UserError, match="trajectory=True mixes the gradients of two codes.*DBAE has none"):
        tiny_model.interpolate(*images, trajectory=True)
    with pytest.raises(UserError, match="DBAE has none: interpolate its codes"):
        tiny_model.decode(edit.along_trajectories(Encoded(np.zeros((1, 8))), Encoded(np.ones((1, 8))), 3))
