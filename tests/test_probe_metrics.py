"""Metrics of probes and feature sets against hand counts, definitions and closed forms."""

import tracemalloc

import numpy as np
import pytest
import sklearn.metrics
from scipy import linalg, stats

from diffrep_jax.metrics import probe
from diffrep_jax.metrics.fid import Moments, frechet_distance
from diffrep_jax.metrics.image import ssim, ssim_official

RANDOM = np.random.default_rng(0)


def test_average_precision_is_the_mean_precision_at_the_positives():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.4]])
    labels = np.array([[1, 1], [0, 0], [1, 0], [0, 0]])
    np.testing.assert_allclose(probe.average_precision(scores, labels), [(1 + 2 / 3) / 2, 1 / 4], rtol=1e-12)


@pytest.mark.filterwarnings("error")
def test_what_the_images_cannot_tell_is_not_a_number_and_left_out_of_the_mean():
    """An attribute that no image has, the correlation of a single image, and a mean of nothing: in silence."""
    values = probe.average_precision(RANDOM.normal(size=(3, 2)), np.array([[0, 1], [0, 0], [0, 1]]))
    assert np.isnan(values[0]) and 0 < values[1] <= 1 and probe.mean(values) == values[1]
    r = probe.pearson(RANDOM.normal(size=(1, 2)), RANDOM.normal(size=(1, 2)))
    assert r.shape == (2,) and np.isnan(r).all() and np.isnan(probe.mean(r))


def test_average_precision_pearson_and_mse_are_those_of_the_libraries():
    """Also with ties, an attribute of all images, one of none, and a constant column."""
    scores = np.round(RANDOM.normal(size=(60, 4)), 1)
    labels = (RANDOM.random((60, 4)) < [0.1, 0.5, 0, 1]).astype(float)
    found = probe.average_precision(scores, labels)
    for i in (0, 1, 3):
        np.testing.assert_allclose(found[i], sklearn.metrics.average_precision_score(labels[:, i], scores[:, i]))
    assert np.isnan(found[2]) and found[3] == pytest.approx(1)
    target = RANDOM.normal(size=(60, 4)) + scores
    scores[:, 2] = 0.7
    r, error = probe.pearson(scores, target), probe.squared_error(scores, target)
    for i in range(4):
        expected = np.nan if i == 2 else stats.pearsonr(scores[:, i], target[:, i])[0]
        np.testing.assert_allclose(r[i], expected, rtol=1e-10)
        np.testing.assert_allclose(error[i], sklearn.metrics.mean_squared_error(target[:, i], scores[:, i]))


def test_pearson_is_the_cosine_of_what_is_centred():
    x, y = RANDOM.normal(size=(50, 3)), RANDOM.normal(size=(50, 3))
    y[:, 1] = 3 - 2 * x[:, 1]
    y[:, 2] = 7
    u, v = x - x.mean(0), y - y.mean(0)
    found = probe.pearson(x.astype(np.float32), y)
    np.testing.assert_allclose(
        found[0], (u[:, 0] @ v[:, 0]) / np.sqrt((u[:, 0] ** 2).sum() * (v[:, 0] ** 2).sum()), 1e-6
    )
    np.testing.assert_allclose(found[1], -1, rtol=1e-6)
    assert np.isnan(found[2])
    np.testing.assert_allclose(probe.squared_error([[1, 2], [3, 4]], [[1, 0], [1, 4]]), [2, 2])


def moments(features, batch):
    out = Moments.empty(features.shape[1])
    for start in range(0, len(features), batch):
        out.update(features[start : start + batch])
    return out


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_running_moments_are_those_of_the_whole(batch):
    features = 100 + RANDOM.normal(size=(100, 5)) @ RANDOM.normal(size=(5, 5))
    found = moments(features, batch)
    np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-10)


def test_the_distance_is_that_of_the_definition():
    x, y = RANDOM.normal(size=(200, 6)) @ RANDOM.normal(size=(6, 6)), RANDOM.normal(size=(150, 6)) + 0.5
    c1, c2 = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * linalg.sqrtm(c1 @ c2).real)
    np.testing.assert_allclose(frechet_distance(moments(x, 64), moments(y, 64)), expected, rtol=1e-8)


def test_the_distance_of_scaled_and_shifted_sets_is_known():
    """For x and s x + m with the same covariance up to the scale: |mean shift|^2 + (1 - s)^2 tr C."""
    x = RANDOM.normal(size=(300, 4)) @ RANDOM.normal(size=(4, 4))
    y = 3 * x + 2
    shift = ((y.mean(0) - x.mean(0)) ** 2).sum()
    np.testing.assert_allclose(
        frechet_distance(moments(x, 50), moments(y, 50)), shift + 4 * np.trace(np.cov(x.T)), rtol=1e-9
    )


def test_the_same_images_one_image_and_fewer_than_dimensions():
    few = RANDOM.normal(size=(3, 10))
    assert frechet_distance(moments(few, 2), moments(few, 3)) < 1e-9
    one, other = moments(few[:1], 1), moments(few[1:2], 1)
    np.testing.assert_allclose(frechet_distance(one, other), ((few[0] - few[1]) ** 2).sum())


def test_moments_of_many_images_take_the_memory_of_few():
    """Whatever the number of batches, no more than some matrices [d, d]."""

    def peak(batches):
        found = Moments.empty(64)
        tracemalloc.start()
        for _ in range(batches):
            found.update(RANDOM.normal(size=(50, 64)))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.count == 50 * batches
        return used

    peak(3)
    assert peak(300) < 1.2 * peak(3)


def test_the_official_ssim_moves_its_window_over_width_and_channels():
    """It is the SSIM of images whose axes h, w, c are read as c, h, w."""
    x, y = RANDOM.random((2, 9, 12, 3)), RANDOM.random((2, 9, 12, 3))
    read = [np.ascontiguousarray(np.moveaxis(image, 1, -1)) for image in (x, y)]  # [n, w, c, h]: h as the channels
    np.testing.assert_allclose(ssim_official(x, y), ssim(*read), rtol=1e-12)
    assert np.all(np.abs(ssim_official(x, y) - ssim(x, y)) > 1e-3)
