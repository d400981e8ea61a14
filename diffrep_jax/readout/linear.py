"""The one linear fit on frozen codes: for `probe`, for the directions of `manipulate`, with or without ProMask."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffrep_jax.readout import promask
from diffrep_jax.types import Array, Code, PyTree

LOSSES = {"bce": optax.sigmoid_binary_cross_entropy, "mse": optax.squared_error}
AVERAGE = 0.999  # decay of the heads' average


@dataclasses.dataclass(frozen=True)
class Fit:
    """kind: "bce" or "mse", the mean over examples and attributes. Adam at `lr`; each epoch sees all examples in a
    fresh order, or `shuffled` being False in theirs, its last batch being short. dimensions: how many of the code a
    head may read (ProMask); 0: all."""

    kind: str
    epochs: int
    batch_size: int
    lr: float
    dimensions: int = 0
    shuffled: bool = True


class Heads(NamedTuple):
    """After each epoch: the head, kernel [epochs, d, k] and bias [epochs, k], and its average over the steps so far.

    mask [d]: 1 where a masked head reads a dimension, drawn from the last probabilities; else all ones.
    """

    kernel: Array
    bias: Array
    average_kernel: Array
    average_bias: Array
    mask: Array


def at_unit_scale(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measures [n] or [n, k] as (values of mean 0 and deviation 1 in float32, their means, their deviations).

    In float64: 1.7e9 seconds differ by less than float32 tells from their mean. Of a constant the values are 0, and so
    is the deviation: a head brought back by it says the constant.
    """
    exact = np.asarray(targets, np.float64)
    centre, scale = exact.mean(0), exact.std(0)
    return ((exact - centre) / np.where(scale > 0, scale, 1)).astype(np.float32), centre, scale


@functools.partial(jax.jit, static_argnames="how")
def fit(codes: Code, targets: Array, key: Array, how: Fit, flipped: Code | None = None) -> Heads:
    """codes [n, d], targets [n, k]; one compiled call. The start is PyTorch's, U(-1/sqrt(d), 1/sqrt(d)).

    flipped: the codes of the mirrored images; each time that an example is seen, it is one or the other at random.
    """
    n, d = codes.shape
    steps = -(-n // how.batch_size)
    masked = 0 < how.dimensions < d
    key_start, key_order = jax.random.split(key)
    key_mask, key_flip = jax.random.fold_in(key, 2), jax.random.fold_in(key, 4)
    start = jax.random.uniform(key_start, (d + 1, targets.shape[1]), minval=-(d**-0.5), maxval=d**-0.5)
    params: dict[str, Any] = {"head": {"kernel": start[:-1], "bias": start[-1]}}
    optimizer = optax.adam(how.lr)
    if masked:
        params["scores"] = jnp.ones(d)
        clipped = optax.chain(optax.clip_by_global_norm(promask.CLIP), optax.adam(how.lr))
        labels = {"head": "head", "scores": "scores"}
        optimizer = optax.multi_transform({"head": optimizer, "scores": clipped}, labels)

    def loss(params: PyTree, rows: Array, i: Array, factor: Array) -> Array:
        weights = (rows < n).astype(codes.dtype)  # n stands for "none" in the last batch
        rows = jnp.minimum(rows, n - 1)
        mask = promask.soft_mask(params["scores"], jax.random.fold_in(key_mask, i), factor) if masked else 1.0
        z = codes[rows]
        if flipped is not None:
            z = jnp.where(jax.random.bernoulli(jax.random.fold_in(key_flip, i), 0.5, (len(rows), 1)), flipped[rows], z)
        outputs = (z * mask) @ params["head"]["kernel"] + params["head"]["bias"]
        errors = LOSSES[how.kind](outputs, targets[rows]).mean(1)
        return (weights * errors).sum() / weights.sum()

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        before, average, state, i = carry
        rows, kept, factor = inputs
        grads = jax.grad(loss)(before, rows, i, factor)
        updates, state = optimizer.update(grads, state)
        params: Any = optax.apply_updates(before, updates)
        if masked:
            params["scores"] = promask.constrain(params["scores"], kept)
        weight = 1 - jnp.minimum(AVERAGE, (1 + i) / (10 + i))  # short trainings would keep the start
        average = jax.tree.map(lambda old, new: old + weight * (new - old), average, params["head"])
        return (params, average, state, i + 1), None

    def epoch(carry: Any, inputs: Any) -> tuple[Any, PyTree]:
        key, kept, factors = inputs
        order = jax.random.permutation(key, n) if how.shuffled else jnp.arange(n)
        rows = jnp.concatenate([order, jnp.full(steps * how.batch_size - n, n)]).reshape(steps, how.batch_size)
        carry, _ = jax.lax.scan(step, carry, (rows, kept, factors))
        return carry, (carry[0]["head"], carry[1])

    plan = promask.plan(how.epochs * steps, d, how.dimensions if masked else d)
    plan = tuple(jnp.asarray(values, jnp.float32).reshape(how.epochs, steps) for values in plan)
    first = (params, params["head"], optimizer.init(params), jnp.zeros((), jnp.int32))
    (params, *_), (heads, averages) = jax.lax.scan(epoch, first, (jax.random.split(key_order, how.epochs), *plan))
    drawn = jax.random.uniform(jax.random.fold_in(key, 3), (d,))
    mask = (drawn < params["scores"]).astype(jnp.float32) if masked else jnp.ones(d)
    return Heads(heads["kernel"], heads["bias"], averages["kernel"], averages["bias"], mask)
