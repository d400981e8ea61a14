"""Images as codes, and the way between two of them: lerp of z, slerp of the stochastic code (DiffAE, section 4.2)."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Encoded:
    """z [n, d], and the stochastic codes [n, h, w, c] (`AutoEncoder.invert`), None where they were not looked for."""

    z: np.ndarray
    stochastic_code: np.ndarray | None

    def __getitem__(self, rows: slice) -> "Encoded":
        return Encoded(self.z[rows], None if self.stochastic_code is None else self.stochastic_code[rows])


def between(first: Encoded, second: Encoded, alpha: float, dimensions: slice = slice(None)) -> Encoded:
    """The point alpha in [0, 1] of the way, on which z changes in these dimensions alone."""
    z = first.z.copy()
    z[:, dimensions] = (1 - alpha) * first.z[:, dimensions] + alpha * second.z[:, dimensions]
    if first.stochastic_code is None or second.stochastic_code is None:
        return Encoded(z, None)
    return Encoded(z, slerp(first.stochastic_code, second.stochastic_code, alpha))


def slerp(first: np.ndarray, second: np.ndarray, alpha: float) -> np.ndarray:
    """The point alpha of the great circle's way, for each of the first axis; of the straight line where they align.

    Two normal noises are about orthogonal: their mean has not the norm of a noise, a point of the arc has.
    """
    axes = tuple(range(1, first.ndim))
    norms = [np.sqrt((x.astype(np.float64) ** 2).sum(axes, keepdims=True)) for x in (first, second)]
    cosine = (first.astype(np.float64) * second).sum(axes, keepdims=True) / np.maximum(norms[0] * norms[1], 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    straight = np.sin(angle) < 1e-6
    sine = np.where(straight, 1, np.sin(angle))
    weights = [np.where(straight, share, np.sin(share * angle) / sine) for share in (1 - alpha, alpha)]
    return (weights[0] * first + weights[1] * second).astype(first.dtype)
