"""ProMask: its schedules and its projection meet golden numbers, and it finds the dimensions that tell."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from diffrep_jax import promask

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
    fit = jax.jit(functools.partial(promask.fit, dimensions=3, kind="bce", epochs=40, batch_size=100, lr=1e-2))
    head = jax.tree.map(np.asarray, fit(codes, labels, jax.random.key(0)))
    assert np.flatnonzero(head["mask"]).tolist() == telling
    weights = (head["kernel"][:, 0] * head["mask"])[telling]
    np.testing.assert_allclose(weights / weights.mean(), 1, atol=0.1)  # all three count alike
    accuracy = ((codes * head["mask"]) @ head["kernel"] + head["bias"] > 0) == (labels > 0.5)
    assert accuracy.mean() > 0.97


def test_without_a_mask_it_is_least_squares():
    codes = RANDOM.normal(size=(400, 5)).astype(np.float32)
    targets = (codes @ RANDOM.normal(size=(5, 2)) + 0.3).astype(np.float32)
    fit = jax.jit(functools.partial(promask.fit, dimensions=5, kind="mse", epochs=1500, batch_size=200, lr=1e-2))
    head = fit(codes, targets, jax.random.key(0))
    expected = np.linalg.lstsq(np.c_[codes, np.ones(400)], targets, rcond=None)[0]
    np.testing.assert_allclose(np.r_[head["kernel"], head["bias"][None]], expected, atol=1e-2)
    np.testing.assert_array_equal(head["mask"], np.ones(5))
