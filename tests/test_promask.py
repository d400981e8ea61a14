"""ProMask: its schedules and its projection meet golden numbers, and it finds the dimensions that tell."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from diffrep_jax.readout import promask
from diffrep_jax.readout.linear import Fit, fit

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "promask.npz")
RANDOM = np.random.default_rng(0)


def test_the_schedules_meet_the_official_numbers():
    np.testing.assert_allclose(promask.keep_ratio(GOLDEN["its"], 101, 16 / 512), GOLDEN["keep_ratio"], rtol=1e-9)
    np.testing.assert_allclose(promask.temperature(GOLDEN["its"], 101), GOLDEN["temperature"], rtol=1e-9)


def test_the_projection_meets_the_official_numbers():
    found = np.asarray(promask.constrain(jnp.asarray(GOLDEN["scores"]), 512 * float(GOLDEN["keep"])))
    expected = GOLDEN["scores_constrained"]
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("kept", [1.0, 7.5, 40.0])
def test_the_projection_solves_for_v(kept):
    scores = RANDOM.uniform(-0.2, 1.3, 50)
    v = brentq(lambda v: np.clip(scores - v, 0, 1).sum() - kept, -2, 2)
    expected = np.clip(scores - max(v, 0), 0, 1)
    np.testing.assert_allclose(promask.constrain(jnp.asarray(scores, jnp.float32), kept), expected, atol=1e-5)


def test_a_mask_is_kept_with_the_probability_that_its_score_says():
    scores = jnp.array([0.0, 0.1, 0.5, 0.9, 1.0])
    draw = jax.vmap(lambda key: promask.soft_mask(scores, key, jnp.asarray(200.0)))
    np.testing.assert_allclose(draw(jax.random.split(jax.random.key(0), 20_000)).mean(0), scores, atol=0.015)
    gradient = jax.grad(lambda s: promask.soft_mask(s, jax.random.key(1), jnp.asarray(1.0)).sum())(scores)
    assert np.isfinite(gradient).all() and (gradient[1:4] > 0).all()


def test_it_keeps_the_dimensions_that_tell():
    codes = RANDOM.normal(size=(2000, 40)).astype(np.float32)
    telling = [3, 17, 29]
    labels = (codes[:, telling].sum(1, keepdims=True) > 0).astype(np.float32)
    heads = fit(codes, labels, jax.random.key(0), Fit("bce", epochs=40, batch_size=100, lr=1e-2, dimensions=3))
    kernel, bias, mask = (np.asarray(x) for x in (heads.kernel[-1], heads.bias[-1], heads.mask))
    assert np.flatnonzero(mask).tolist() == telling and set(mask) == {0, 1}
    weights = (kernel[:, 0] * mask)[telling]
    np.testing.assert_allclose(weights / weights.mean(), 1, atol=0.1)  # all three count alike
    accuracy = ((codes * mask) @ kernel + bias > 0) == (labels > 0.5)
    assert accuracy.mean() > 0.97


@pytest.mark.parametrize("dimensions", [4, 10])
def test_it_keeps_about_as_many_dimensions_as_it_is_asked_for(dimensions):
    """Also where all of them tell the same: then each mask is a draw, whose mean sum is that of the probabilities."""
    codes = RANDOM.normal(size=(1000, 40)).astype(np.float32)
    targets = np.stack([codes.sum(1), -codes.sum(1)], axis=1)
    how = Fit("mse", epochs=10, batch_size=100, lr=1e-2, dimensions=dimensions)
    masks = jax.vmap(lambda key: fit(codes, targets, key, how).mask)(jax.random.split(jax.random.key(1), 40))
    assert masks.shape == (40, 40) and set(np.unique(masks)) == {0, 1}
    assert abs(float(masks.sum(1).mean()) - dimensions) < 1.5  # 3 standard errors of 40 draws with 7.5 as variance


def test_without_a_mask_it_is_least_squares():
    codes = RANDOM.normal(size=(400, 5)).astype(np.float32)
    targets = (codes @ RANDOM.normal(size=(5, 2)) + 0.3).astype(np.float32)
    expected = np.linalg.lstsq(np.c_[codes, np.ones(400)], targets, rcond=None)[0]
    for dimensions in (0, 5, 7):  # no mask, and as many dimensions as there are or more
        heads = fit(codes, targets, jax.random.key(0), Fit("mse", 1500, 200, 1e-2, dimensions))
        np.testing.assert_allclose(np.r_[heads.kernel[-1], heads.bias[-1][None]], expected, atol=1e-2)
        np.testing.assert_array_equal(heads.mask, np.ones(5))
