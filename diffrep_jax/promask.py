"""ProMask: a linear head that reads few dimensions of a code, which it chooses itself (Zhou et al., CVPR 2021,
2105.01571), as DiTi trains it for manipulation (Yue et al., ICLR 2024).

Each dimension has a probability s of being kept. Training draws soft masks from them, which harden,

    mask = sigmoid((log s - log(1 - s) + logistic noise) temperature(i)),

and after each step the probabilities are brought back to sum to d keep_ratio(i): s = clip(s - v, 0, 1), v >= 0. The
ratio stays at 1 for the first tenth of the steps and has fallen to that of the wanted dimensions at four tenths.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffrep_jax.types import Array, Code, PyTree

FALLS = (0.1, 0.4)  # of all steps: where the ratio begins and ends to fall
COLDEST = 0.03  # one over the last temperature's factor
CLIP = 3.0  # the norm of the probabilities' gradient
AVERAGE = 0.999  # decay of the head's average
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


def fit(
    codes: Code, targets: Array, key: Array, *, dimensions: int, kind: str, epochs: int, batch_size: int, lr: float
) -> dict[str, Array]:
    """The averaged head {"kernel": [d, k], "bias": [k]} and its "mask" [d] of 0 and 1, about `dimensions` ones.

    codes [n, d], normalised; targets [n, k]; kind: "bce" or "mse". Adam at `lr` for the head and the probabilities;
    each epoch sees a fresh order, and leaves out what is short of a batch. dimensions = d keeps all: no mask.
    """
    n, d = codes.shape
    batches = n // batch_size
    steps = epochs * batches + 1
    i = np.arange(epochs * batches)
    kept = jnp.asarray(d * keep_ratio(i + 1, steps, dimensions / d), jnp.float32)
    factors = jnp.asarray(temperature(i, steps), jnp.float32)
    losses = {"bce": optax.sigmoid_binary_cross_entropy, "mse": optax.squared_error}
    key_start, key_order, key_mask, key_last = jax.random.split(key, 4)
    start = jax.random.uniform(key_start, (d + 1, targets.shape[1]), minval=-(d**-0.5), maxval=d**-0.5)
    head = {"kernel": start[:-1], "bias": start[-1]}
    scores = jnp.ones(d)
    clipped = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(lr))
    optimizer = optax.multi_transform({"head": optax.adam(lr), "mask": clipped}, {"head": "head", "mask": "mask"})

    def loss(params: PyTree, rows: Array, key: Array, factor: Array) -> Array:
        mask = soft_mask(params["mask"], key, factor) if dimensions < d else 1.0
        outputs = (codes[rows] * mask) @ params["head"]["kernel"] + params["head"]["bias"]
        return losses[kind](outputs, targets[rows]).mean()

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        params, average, state = carry
        i, rows, key, kept, factor = inputs
        updates, state = optimizer.update(jax.grad(loss)(params, rows, key, factor), state)
        params = optax.apply_updates(params, updates)
        params["mask"] = constrain(params["mask"], kept)
        weight = 1 - jnp.minimum(AVERAGE, (1 + i) / (10 + i))  # short trainings would keep the start
        average = jax.tree.map(lambda old, new: old + weight * (new - old), average, params["head"])
        return (params, average, state), None

    orders = jax.vmap(lambda key: jax.random.permutation(key, n)[: batches * batch_size])
    rows = orders(jax.random.split(key_order, epochs)).reshape(epochs * batches, batch_size)
    params = {"head": head, "mask": scores}
    keys = jax.random.split(key_mask, epochs * batches)
    inputs = (jnp.asarray(i), rows, keys, kept, factors)
    (params, average, _), _ = jax.lax.scan(step, (params, head, optimizer.init(params)), inputs)
    mask = jax.random.uniform(key_last, (d,)) < params["mask"]
    return average | {"mask": mask.astype(jnp.float32)}
