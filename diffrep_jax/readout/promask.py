"""ProMask: a linear head that reads few dimensions of a code, which it chooses itself (Zhou et al., CVPR 2021,
2105.01571), as DiTi trains it for manipulation (Yue et al., ICLR 2024).

Each dimension has a probability s of being kept. Training draws soft masks from them, which harden,

    mask = sigmoid((log s - log(1 - s) + logistic noise) temperature(i)),

and after each step the probabilities are brought back to sum to d keep_ratio(i): s = clip(s - v, 0, 1), v >= 0. The
ratio stays at 1 for the first tenth of the steps and has fallen to that of the wanted dimensions at four tenths.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array

FALLS = (0.1, 0.4)  # of all steps: where the ratio begins and ends to fall
COLDEST = 0.03  # one over the last temperature's factor
CLIP = 3.0  # the norm of the probabilities' gradient
TINY = 1e-20


def keep_ratio(i: np.ndarray, steps: int, ratio: float) -> np.ndarray:
    """The share of the dimensions that is kept after step i of `steps`: 1, then cubically down to `ratio`."""
    start, end = (int(part * steps) for part in FALLS)
    left = 1 - np.clip((np.asarray(i) - start) / max(end - start, 1), 0, 1)
    return np.where(np.asarray(i) < end, ratio + (1 - ratio) * left**3, ratio)


def temperature(i: np.ndarray, steps: int) -> np.ndarray:
    """The factor that hardens the masks of step i of `steps`."""
    return 1 / ((1 - COLDEST) * (1 - np.asarray(i) / steps) + COLDEST)


def constrain(scores: Array, kept: Array) -> Array:
    """clip(scores - v, 0, 1) with the smallest v >= 0 for which they sum to at most `kept`, by bisection."""

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        above = jnp.clip(scores - middle, 0, 1).sum() > kept
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    _, v = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(()), scores.max()))
    return jnp.clip(scores - jnp.where(scores.sum() > kept, v, 0), 0, 1)


def soft_mask(scores: Array, key: Array, temperature: Array) -> Array:
    """A draw in [0, 1], through which gradients reach the scores."""
    noise = jax.random.logistic(key, scores.shape)
    left = jnp.maximum(1 - scores, 0)  # without the maximum, XLA makes (1 + TINY) - scores of it, and 0 of that
    odds = jnp.log(scores + TINY) - jnp.log(left + TINY)
    return jax.nn.sigmoid((odds + noise) * temperature)


def plan(steps: int, d: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `steps` steps: what the probabilities sum to after it, and what hardens its mask: [steps] each."""
    i = np.arange(steps)
    return d * keep_ratio(i + 1, steps + 1, dimensions / d), temperature(i, steps + 1)
