"""What a linear probe is judged by: average precision of classes, Pearson's r and MSE of measures, per attribute.

The values are those of scikit-learn and SciPy, in float64.
"""

import warnings

import numpy as np

from diffrep_jax.errors import check_finite


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each attribute: scores [n, k], labels [n, k] of 0 and 1 -> [k].

    An attribute that no image has gives 0, as in scikit-learn: leave it out of means (`has_positives`).
    """
    from sklearn.metrics import average_precision_score

    check_finite(scores, "The scores of image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for attributes without a positive
        return np.array([average_precision_score(labels[:, i], scores[:, i]) for i in range(labels.shape[1])])


def has_positives(labels: np.ndarray) -> np.ndarray:
    """Which attributes some image has: [n, k] -> bool [k]."""
    return np.asarray(labels).max(0) > 0


def pearson(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The correlation of each attribute: [n, k] x 2 -> [k], NaN where one side is constant."""
    from scipy.stats import pearsonr

    predicted, target = _pair(predicted, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for constant attributes
        return np.array([pearsonr(predicted[:, i], target[:, i])[0] for i in range(target.shape[1])])


def squared_error(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The MSE of each attribute: [n, k] x 2 -> [k]."""
    predicted, target = _pair(predicted, target)
    return ((predicted - target) ** 2).mean(0)


def _pair(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64; NotFinite where one is not."""
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    check_finite(predicted, "The prediction for image")
    check_finite(target, "The measures of image")
    return predicted, target
