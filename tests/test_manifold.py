"""Precision, recall and inception score: scikit-learn's neighbours, values that are known, and laws."""

import jax
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors

from diffrep_jax.metrics import inception, manifold
from tests import golden, perceptual

RANDOM = np.random.default_rng(0)


def covered(points, by):
    """By scikit-learn: each point of `by` reaches to its third neighbour."""
    reach = NearestNeighbors(n_neighbors=4).fit(by).kneighbors(by)[0][:, 3]
    return np.mean([(np.linalg.norm(by - point, axis=1) <= reach).any() for point in points])


def test_precision_and_recall_are_those_of_nearest_neighbours(monkeypatch):
    """In blocks that divide neither set."""
    monkeypatch.setattr(manifold, "ROWS", 30)
    monkeypatch.setattr(manifold, "COLUMNS", 7)
    real, made = RANDOM.normal(size=(80, 5)).astype(np.float32), 0.7 + RANDOM.normal(size=(50, 5)).astype(np.float32)
    precision, recall = manifold.precision_recall(real, made)
    assert (precision, recall) == (covered(made, real), covered(real, made))
    assert 0.1 < precision < 0.95 and precision != recall


def test_collapsed_samples_are_precise_and_recall_little():
    real = RANDOM.normal(size=(200, 3)).astype(np.float32)
    precision, recall = manifold.precision_recall(
        real, real[:1] + 1e-3 * RANDOM.normal(size=(60, 3)).astype(np.float32)
    )
    assert precision == 1 and recall < 0.05


def test_the_inception_score_of_what_is_known():
    """Sure of k classes that are equally frequent: k; unsure of all: 1; else the KL by SciPy, over ten parts."""
    assert manifold.inception_score(np.tile(np.eye(8), (20, 1))) == pytest.approx(8)
    assert manifold.inception_score(np.full((20, 6), 1 / 6)) == pytest.approx(1)
    p = softmax(RANDOM.normal(size=(40, 5)), axis=1)
    expected = [np.exp(np.mean([entropy(row, part.mean(0)) for row in part])) for part in np.split(p, 10)]
    assert manifold.inception_score(p) == pytest.approx(np.mean(expected))


def test_classes_are_a_layer_without_bias_on_the_features():
    state = perceptual.inception_state()
    assert "classes" not in inception.weights(state)
    layer = 0.1 * golden.normal("fc.weight", 1008, 2048)
    params = inception.weights(state | {"fc.weight": layer, "fc.bias": np.ones(1008, np.float32)})
    features = RANDOM.normal(size=(3, 2048)).astype(np.float32)
    ours = jax.jit(inception.probabilities)(params, features)
    np.testing.assert_allclose(ours, softmax(features.astype(float) @ layer.T, axis=1), atol=1e-5)
