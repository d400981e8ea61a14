"""What is done with codes before they are decoded: arrays in, arrays out, no files.

Interpolation is lerp of z and slerp of the stochastic code (DiffAE, section 4.2); a counterfactual lets some blocks
of z alone go from one image's to the other's (DiTi, section 5.2); an attribute moves z along a linear head's weights.
"""

import dataclasses

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.fields import shown, whole
from diffrep_jax.inference.arrays import check_shape
from diffrep_jax.inference.encoded import Encoded, joined
from diffrep_jax.methods.base import Mixture


def between(first: Encoded, second: Encoded, alpha: float, dimensions: slice = slice(None)) -> Encoded:
    """The point alpha in [0, 1] of the way, on which z changes in these dimensions alone."""
    z = first.z.copy()
    z[:, dimensions] = (1 - alpha) * first.z[:, dimensions] + alpha * second.z[:, dimensions]
    if first.stochastic_code is None or second.stochastic_code is None:
        return Encoded(z, None)
    return Encoded(z, slerp(first.stochastic_code, second.stochastic_code, alpha))


def interpolate(first: Encoded, second: Encoded, points: int, dimensions: slice = slice(None)) -> Encoded:
    """The way from one image to another, both ends included: `points` rows for the one row of each."""
    points = whole(points, "points", 2)  # the two ends
    return joined([between(first, second, float(alpha), dimensions) for alpha in np.linspace(0, 1, points)])


def along_trajectories(first: Encoded, second: Encoded, points: int) -> Encoded:
    """As `interpolate`, but decoded by a mixture of what either code does at each step (PDAE, section 4.3)."""
    way = interpolate(first, second, points)
    begin, end = (np.repeat(side.z, points, axis=0) for side in (first, second))
    return dataclasses.replace(way, mixture=Mixture(begin, end, np.linspace(0, 1, points, dtype=np.float32)))


def block_ends(own: np.ndarray, blocks: int, place: str) -> np.ndarray:
    """The dimension behind each block of z: those of the method, `own`, or of `blocks` equal ones; 0: the method's.

    Raises UserError, naming the field `place`, where z cannot be cut into so many equal blocks.
    """
    dimensions = int(own[-1])
    if blocks == 0:
        return own
    if not 0 < blocks <= dimensions or dimensions % blocks:
        raise UserError(
            f"{place}={blocks} equal blocks do not fit a code of {dimensions} dimensions; use a divisor of it, or 0 "
            "for the method's own blocks."
        )
    return np.arange(1, blocks + 1) * (dimensions // blocks)


def prefix(encoded: Encoded, dimensions: int) -> Encoded:
    """z with its first dimensions alone, the others 0: for DiTi the code as its early time-steps have built it up."""
    kept = np.arange(encoded.z.shape[1]) < dimensions
    return encoded.with_z(np.where(kept, encoded.z, np.float32(0)))


def block_dimensions(block_ends: np.ndarray, start: int, width: int) -> slice:
    """The dimensions of z that `width` blocks from `start` on own; UserError for blocks that there are not."""
    count = len(block_ends)
    if not (0 <= start and 1 <= width and start + width <= count):
        raise UserError(f"There are no {width} blocks from {start} on; this model has {count}, numbered from 0.")
    edges = [0, *block_ends.tolist()]
    return slice(edges[start], edges[start + width])


def move(encoded: Encoded, direction: np.ndarray, scale: float) -> Encoded:
    """z + scale sqrt(d) direction, for a direction [d] in the space of z as it is; the stochastic code stays."""
    check_shape("direction", np.asarray(direction), _codes(encoded).shape[1:])
    return step(encoded, np.sqrt(len(direction)) * direction, scale)


def step(encoded: Encoded, steps: np.ndarray, scale: float) -> Encoded:
    """z + scale steps, [d] for all images or [n, d]; the stochastic code stays.

    With `Head.to_boundary` it is a counterfactual: at scale 1 the head doubts, at 2 it is as sure of the contrary.
    """
    z = _codes(encoded)
    check_shape("steps", np.asarray(steps), z.shape[-np.ndim(steps) :])
    if np.ndim(scale) or np.asarray(scale).dtype.kind not in "iuf":
        raise UserError(f"scale is {shown(scale)}; give a number, such as 0.3.")
    return encoded.with_z((z + scale * np.asarray(steps)).astype(z.dtype))


def _codes(encoded: Encoded) -> np.ndarray:
    if not isinstance(encoded, Encoded):
        raise UserError(f"A {type(encoded).__name__} is no encoded image; give what Model.encoded answers.")
    return encoded.z


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
