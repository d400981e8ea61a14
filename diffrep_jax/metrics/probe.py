"""What a linear probe is judged by: average precision of classes, Pearson's r and MSE of measures, per attribute.

The values are those of scikit-learn and SciPy, in float64.
"""

import warnings

import numpy as np

from diffrep_jax.errors import check_finite


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each attribute: scores [n, k], labels [n, k] of 0 and 1 -> [k].

    NaN for an attribute that no image has, where scikit-learn says 0.
    """
    from sklearn.metrics import average_precision_score

    check_finite(scores, "The scores of image")
    columns = zip(np.asarray(labels).T, np.asarray(scores).T, strict=True)
    return np.array([average_precision_score(has, score) if has.any() else np.nan for has, score in columns])


def pearson(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The correlation of each attribute: [n, k] x 2 -> [k], NaN where one side is constant, as one image is."""
    from scipy.stats import pearsonr

    predicted, target = _pair(predicted, target)
    if len(target) < 2:
        return np.full(target.shape[1], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for constant attributes
        return np.array([pearsonr(predicted[:, i], target[:, i])[0] for i in range(target.shape[1])])


def squared_error(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The MSE of each attribute: [n, k] x 2 -> [k]."""
    predicted, target = _pair(predicted, target)
    return ((predicted - target) ** 2).mean(0)


def mean(values: np.ndarray) -> float:
    """The mean over the attributes [k] that are not NaN; NaN where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _pair(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In float64; NotFinite where one is not."""
    predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
    check_finite(predicted, "The prediction for image")
    check_finite(target, "The measures of image")
    return predicted, target
