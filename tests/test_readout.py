"""Linear heads on codes: the fit against scikit-learn's optimum, a head and its directions by formula."""

import jax
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from diffrep_jax.errors import UserError
from diffrep_jax.inference.edit import move
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.readout.head import Head, from_arrays
from diffrep_jax.readout.linear import AVERAGE, Fit, fit

RANDOM = np.random.default_rng(0)
CODES = (RANDOM.normal(size=(300, 5)) * [1, 2, 0.5, 1, 1] + [0, 1, 0, -1, 0]).astype(np.float32)
WEIGHTS = RANDOM.normal(size=(5, 2))


# --- the fit


def test_a_long_regression_is_least_squares():
    targets = CODES @ WEIGHTS + 0.5 + 0.3 * RANDOM.normal(size=(300, 2))
    heads = fit(CODES, targets.astype(np.float32), jax.random.key(0), Fit("mse", 1500, 300, 1e-2))
    best = LinearRegression().fit(CODES, targets)
    np.testing.assert_allclose(heads.kernel[-1], best.coef_.T, atol=1e-3)
    np.testing.assert_allclose(heads.bias[-1], best.intercept_, atol=1e-3)


def test_a_long_classification_is_the_logistic_regression():
    """Without regularisation, each attribute for itself; the average of the heads ends there too."""
    labels = (CODES @ WEIGHTS + RANDOM.logistic(size=(300, 2)) > 0).astype(np.float32)
    heads = fit(CODES, labels, jax.random.key(0), Fit("bce", 3000, 300, 1e-2))
    for i in range(2):
        best = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8).fit(CODES, labels[:, i])
        for kernel, bias in ((heads.kernel, heads.bias), (heads.average_kernel, heads.average_bias)):
            np.testing.assert_allclose(kernel[-1][:, i], best.coef_[0], atol=5e-3)
            np.testing.assert_allclose(bias[-1][i], best.intercept_[0], atol=5e-3)


def test_the_average_follows_the_heads_of_all_steps():
    """One batch an epoch, so that the head after each step is known; the decay grows as (1 + i) / (10 + i)."""
    targets = (CODES @ WEIGHTS).astype(np.float32)
    heads = fit(CODES, targets, jax.random.key(0), Fit("mse", 30, 300, 1e-2))
    for i in range(1, 30):
        decay = min(AVERAGE, (1 + i) / (10 + i))
        expected = decay * np.asarray(heads.average_kernel[i - 1]) + (1 - decay) * np.asarray(heads.kernel[i])
        np.testing.assert_allclose(heads.average_kernel[i], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(heads.average_kernel[-1] - heads.kernel[-1]).max() > 1e-3


def test_a_short_last_batch_is_a_step_of_its_own():
    """Far from the optimum Adam's steps all go the same way, by lr."""
    targets = (CODES @ WEIGHTS + 100).astype(np.float32)
    for batch_size, steps in ((300, 1), (299, 2), (100, 3)):
        heads = fit(CODES, targets, jax.random.key(0), Fit("mse", 2, batch_size, 1e-3))
        np.testing.assert_allclose(heads.bias[1] - heads.bias[0], 1e-3 * steps, rtol=1e-2)


def test_the_start_is_uniform_within_the_root_of_d():
    codes = np.zeros((4, 400), np.float32)
    heads = fit(codes, np.zeros((4, 30), np.float32), jax.random.key(0), Fit("mse", 1, 4, 1e-12))
    for values in (heads.kernel, heads.bias):
        assert np.abs(values).max() <= 400**-0.5 * (1 + 1e-5)
    assert np.std(heads.kernel) == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)


# --- the head


def head(**changes):
    fields = {
        "names": ("a", "b"),
        "kernel": WEIGHTS.astype(np.float32),
        "bias": np.array([0.5, -0.5], np.float32),
        "kind": "bce",
        "dataset": "toy",
        "trained_by": "probe",
        "mean": CODES.mean(0),
        "std": CODES.std(0),
        "fingerprint": np.arange(5, dtype=np.float32),
    }
    return Head(**fields | changes)


def test_logits_are_those_of_each_attribute():
    logits = head().logits(CODES)
    np.testing.assert_allclose(logits, CODES @ WEIGHTS + [0.5, -0.5], rtol=1e-4, atol=1e-5)
    only = head().only("b")
    assert only.names == ("b",) and only.kernel.shape == (5, 1)
    np.testing.assert_allclose(only.logits(CODES), logits[:, 1:], rtol=1e-5, atol=1e-6)


def test_the_raw_direction_has_length_one_and_goes_with_the_weights():
    direction = head().only("b").direction(normalised=False)
    weights = WEIGHTS[:, 1]
    np.testing.assert_allclose(direction, weights / np.sqrt((weights**2).sum()), rtol=1e-5)


def test_the_normalised_direction_is_a_unit_step_of_normalised_codes():
    """A head on (z - mean) / std has the weights std w; its unit step, seen in z, is std times that."""
    direction = head().only("b").direction(normalised=True)
    std, weights = CODES.std(0), CODES.std(0) * WEIGHTS[:, 1]
    step = direction / std
    np.testing.assert_allclose(np.linalg.norm(step), 1, rtol=1e-5)
    np.testing.assert_allclose(step, weights / np.sqrt((weights**2).sum()), rtol=1e-5)


def test_a_move_along_the_raw_direction_raises_the_logit_by_the_norm_of_the_weights():
    one = head().only("a")
    before = one.logits(CODES)[:, 0]
    moved = move(Encoded(CODES), one.direction(normalised=False), 0.3)
    expected = before + 0.3 * np.sqrt(5) * np.linalg.norm(WEIGHTS[:, 0])
    np.testing.assert_allclose(one.logits(moved.z)[:, 0], expected, rtol=1e-4)


def test_a_head_comes_back_from_its_file(tmp_path):
    np.savez(tmp_path / "head.npz", **head().arrays())
    with np.load(tmp_path / "head.npz") as arrays:
        back = from_arrays(arrays, "head.npz")
    for name, value in vars(head()).items():
        np.testing.assert_array_equal(getattr(back, name), value)
        assert type(getattr(back, name)) is type(value)


@pytest.mark.parametrize("missing", ["kernel", "fingerprint", "kind"])
def test_a_file_of_an_earlier_version_is_refused(missing):
    arrays = {name: value for name, value in head().arrays().items() if name != missing}
    with pytest.raises(UserError, match=f"head.npz has no {missing}: an earlier version wrote it; run --task=probe"):
        from_arrays(arrays, "head.npz")
