"""The Frechet distance of two sets of features, from running sums: memory does not grow with the number of images.

Heusel et al. 2017 (1706.08500): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), means m and covariances C in float64.
"""

import dataclasses

import numpy as np

from diffrep_jax.errors import check_finite


@dataclasses.dataclass
class Moments:
    """The number, mean and scatter of features [d], updated batch by batch (Chan et al. 1983)."""

    count: int
    mean: np.ndarray  # float64 [d]
    scatter: np.ndarray  # float64 [d, d], the sum of (x - mean)(x - mean)^T

    @classmethod
    def empty(cls, dimensions: int) -> "Moments":
        return cls(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))

    def update(self, features: np.ndarray) -> None:
        """Take in features [n, d]."""
        features = np.asarray(features, np.float64)
        check_finite(features, "The features of image")
        count, mean = len(features), features.mean(0)
        centred = features - mean
        shift = mean - self.mean
        total = self.count + count
        self.scatter = self.scatter + centred.T @ centred + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """[d, d], with n - 1, as numpy.cov and pytorch-fid have it; zero for a single image."""
        return self.scatter / max(self.count - 1, 1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """The squared Frechet distance of the two normal distributions; 0 for the same, at least 0 always.

    tr (C1 C2)^(1/2) is the sum of the square roots of the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric: no
    complex root, also where there are fewer images than dimensions.
    """
    difference = one.mean - other.mean
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ other.covariance @ root)
    cross = np.sqrt(np.maximum(eigenvalues, 0)).sum()
    distance = difference @ difference + np.trace(one.covariance) + np.trace(other.covariance) - 2 * cross
    return float(max(distance, 0.0))
