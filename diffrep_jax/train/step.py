"""One training step as one jitted call: loss, gradients over micro-batches, update, EMA."""

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from diffrep_jax.forms import platform_of, tracing_for
from diffrep_jax.methods.base import Method
from diffrep_jax.methods.parameters import overlay, part, trained
from diffrep_jax.pixels import to_float
from diffrep_jax.sharding import batch_sharding, is_one_cpu, replicated
from diffrep_jax.train import heap
from diffrep_jax.train.joined import LEAF_BY_LEAF, Elementwise
from diffrep_jax.train.state import TrainState
from diffrep_jax.types import Array, Keys, PyTree

Batch = dict[str, Any]  # arrays, and under "views" a dict of them; images may be uint8
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Array]]]


def example_keys(seed: int, step: Array, batch_size: int) -> Keys:
    """One key for each example of the global batch: f(seed, step, position in the batch), [b]."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch_size))


def make_train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    ema_decay: float,
    seed: int,
    microbatches: int = 1,
    elementwise: Elementwise = LEAF_BY_LEAF,
) -> Step:
    """(state, batch) -> (state, metrics); pure.

    `ema_decay` is reached as `ema_decay_at` says. The gradient is that of the trained parameters: the mean over
    `microbatches` parts of the batch, one after the other. Parts see the statistics that the part before left; all
    else is as for the whole batch, since randomness goes by example. Where the batch has "views", the gradient of
    `Method.view_loss` is added, once and of all views together.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Array]]:
        images = {name: value for name, value in batch.items() if name != "views"}
        keys = example_keys(seed, state.step, images["image"].shape[0])
        grads, metrics, batch_stats = _gradient_over_parts(method, state, images, keys, microbatches)
        if "views" in batch:
            added, more = _view_gradient(method, state, batch["views"])
            grads, metrics = elementwise.map(jnp.add, grads, added), metrics | more
        before = trained(method, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, before)
        params = elementwise.map(jnp.add, before, updates)
        current = {"params": part(params, like=state.ema["params"]), "batch_stats": batch_stats}
        weight = 1 - ema_decay_at(state.step, ema_decay)
        ema = elementwise.map(lambda old, new: old + weight * (new - old), state.ema, current)
        new_state = TrainState(state.step + 1, overlay(state.params, params), batch_stats, ema, opt_state)
        return new_state, metrics | {"grad_norm": optax.global_norm(elementwise.grouped(grads))}

    return step


def _gradient(method: Method, state: TrainState, batch_stats: PyTree, batch: dict[str, Array], keys: Keys) -> Any:
    """(gradient, metrics, new batch_stats) of the method's loss, from these batch_stats on."""

    def loss(params: PyTree) -> Any:
        variables = {"params": overlay(state.params, params), "batch_stats": batch_stats}
        value, metrics, new = method.loss(variables, _floats(batch), keys, train=True)
        return value, (metrics, new)

    grads, (metrics, batch_stats) = jax.grad(loss, has_aux=True)(trained(method, state.params))
    return grads, metrics, batch_stats


def _gradient_over_parts(
    method: Method, state: TrainState, batch: dict[str, Array], keys: Keys, microbatches: int
) -> Any:
    """The same for a batch in so many parts."""
    if microbatches == 1:
        return _gradient(method, state, state.batch_stats, batch, keys)

    def microbatch(carry: Any, inputs: Any) -> tuple[Any, None]:
        batch_stats, total = carry
        grads, metrics, batch_stats = _gradient(method, state, batch_stats, *inputs)
        return (batch_stats, jax.tree.map(jnp.add, total, (grads, metrics))), None

    parts = jax.tree.map(lambda x: _interleave(x, microbatches), (batch, keys))
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(lambda *args: _gradient(method, *args)[:2], state, state.batch_stats, *first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (batch_stats, total), _ = jax.lax.scan(microbatch, (state.batch_stats, zeros), parts)
    grads, metrics = jax.tree.map(lambda x: x / microbatches, total)
    return grads, metrics, batch_stats


def _view_gradient(method: Method, state: TrainState, views: dict[str, Array]) -> Any:
    """(gradient, metrics) of the method's loss on views."""

    def loss(params: PyTree) -> Any:
        return method.view_loss(state.variables | {"params": overlay(state.params, params)}, _floats(views))

    return jax.grad(loss, has_aux=True)(trained(method, state.params))


def ema_decay_at(step: Array, ema_decay: float) -> Array:
    """min(ema_decay, (1 + n) / (10 + n)) after n updates: a constant decay would keep the start for long.

    The batch variances start at 1 and may end near 1e-4; with 0.9999 the average would need 100,000 steps to follow.
    """
    return jnp.minimum(ema_decay, (1 + step) / (10 + step))


def _floats(batch: dict[str, Array]) -> dict[str, Array]:
    """The batch with its pixels in [-1, 1]."""
    return {name: to_float(value) for name, value in batch.items()}


def _interleave(x: Array, parts: int) -> Array:
    """[b, ...] -> [parts, b / parts, ...], part i the examples i, i + parts, ...: each stays on its device."""
    return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)


def compile_step(step: Step, state: TrainState, batch: Batch, mesh: Mesh) -> Any:
    """The step compiled for these shapes and shardings, the state donated; also tells its memory."""
    return compile_traced(trace_step(step, state, batch, mesh))


def trace_step(step: Step, state: TrainState, batch: Batch, mesh: Mesh) -> Any:
    """The same before it is lowered and compiled: its jaxpr tells what it costs."""
    if is_one_cpu(mesh):
        heap.touch(2 * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    jitted = jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated(mesh)),
        donate_argnums=0,
    )
    with tracing_for(platform_of(mesh.devices.flat[0])), without_collector():
        return jitted.trace(state, batch)


def compile_traced(traced: Any) -> Any:
    """What `trace_step` gave, compiled."""
    with without_collector():
        lowered = traced.lower()
    return lowered.compile()


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Tracing makes a million objects and no garbage; the collector would take a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
