"""How good and how various generated images are, from the features of Inception: precision, recall, inception score.

Precision and recall (Kynkaanniemi et al. 2019, 1904.06991): the share of generated images that lie among the real ones,
and of real ones among the generated; a set covers what is within the distance from one of its points to that point's
third neighbour. The inception score (Salimans et al. 2016, 1606.03498) is exp of the mean KL of p(y | x) to p(y).
"""

from collections.abc import Iterator

import numpy as np

NEIGHBOUR = 3
SPLITS = 10
ROWS, COLUMNS = 1024, 8192  # of a block of distances


def precision_recall(real: np.ndarray, generated: np.ndarray) -> tuple[float, float]:
    """(precision, recall) of features [n, d] and [m, d]; both need more than NEIGHBOUR images."""
    centre = real.mean(0)  # nearer to 0, squares cancel less
    real, generated = (np.asarray(features - centre, np.float32) for features in (real, generated))
    return _covered(generated, real), _covered(real, generated)


def inception_score(probabilities: np.ndarray) -> float:
    """p(y | x) [n, classes] -> the mean score of SPLITS equal parts, in order; of all at once where there are fewer."""
    parts = np.array_split(np.asarray(probabilities, np.float64), min(SPLITS, len(probabilities)))
    return float(np.mean([np.exp(_divergence(part)) for part in parts]))


def _divergence(p: np.ndarray) -> float:
    logs = np.log(np.maximum(p, 1e-300)) - np.log(np.maximum(p.mean(0), 1e-300))
    return float((p * logs).sum(1).mean())


def _covered(points: np.ndarray, by: np.ndarray) -> float:
    """The share of `points` that lie within the reach of a point of `by`."""
    reach = _reaches(by)
    inside = [
        np.any([np.any(distances <= reach[columns], axis=1) for columns, distances in _distances(part, by)], axis=0)
        for part in _parts(points)
    ]
    return float(np.concatenate(inside).mean())


def _reaches(points: np.ndarray) -> np.ndarray:
    """The squared distance from each point to its NEIGHBOUR-th one; the nearest of all is the point itself."""
    reach = []
    for part in _parts(points):
        nearest = np.zeros((len(part), 0), np.float32)
        for _, distances in _distances(part, points):
            both = np.concatenate([nearest, distances], axis=1)
            nearest = np.partition(both, NEIGHBOUR, axis=1)[:, : NEIGHBOUR + 1]
        reach.append(nearest.max(1))
    return np.concatenate(reach)


def _parts(points: np.ndarray) -> Iterator[np.ndarray]:
    return (points[i : i + ROWS] for i in range(0, len(points), ROWS))


def _distances(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(columns, squared distances [rows, columns]) of all of y."""
    for i in range(0, len(y), COLUMNS):
        columns = slice(i, i + COLUMNS)
        part = y[columns]
        yield columns, np.maximum((x**2).sum(1)[:, None] + (part**2).sum(1) - 2 * x @ part.T, 0)
