"""The only lax.scan over time: runs a sampler's steps along a grid of times as one traced computation.

A sampler is one file with a `Sampler` class: `step` makes one interval, `last` the final one (where c is 0 at the end,
no drift exists), `evaluations(steps)` promises how often the denoiser is called, `stochastic` says whether noise is
needed. Samplers know closures, not networks.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from diffrep_jax.samplers.drift import Problem
from diffrep_jax.types import Array, Image, Keys

Noise = Callable[[Array], Image]  # step index -> standard normal noise of the shape of x


class Stepper(Protocol):
    """The protocol of a sampler; `noise` is None where `stochastic` is False."""

    @property
    def stochastic(self) -> bool: ...

    def evaluations(self, steps: int) -> int: ...

    def step(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None) -> Image: ...

    def last(self, problem: Problem, x: Image, t: Array, t_next: Array, noise: Image | None) -> Image: ...


def normal_noise(keys: Keys, shape: tuple[int, ...]) -> Noise:
    """Noise that depends on an example's key and the step alone: the same in any batch and on any mesh."""

    def noise(step: Array) -> Image:
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, step), shape[1:]))(keys)

    return noise


def sample(
    sampler: Stepper, problem: Problem, x: Image, nodes: Array, noise: Noise | None = None, path: bool = False
) -> Any:
    """Integrate from (x, nodes[0]) to nodes[-1].

    Args:
      x: the start, [b, h, w, c]; for decoding this is x_T.
      nodes: [steps + 1] times: decreasing for decoding, the last one where x_t is x_0; increasing for encoding.
      noise: step index -> noise; needed where the sampler is stochastic.
      path: also return all states.
    Returns:
      x at nodes[-1], or with `path` (that, all states [steps + 1, b, h, w, c] from the start on).
    """
    if sampler.stochastic and noise is None:
        raise ValueError(f"{sampler} draws noise: pass `noise`")
    nodes = jnp.asarray(nodes, x.dtype)
    steps = nodes.shape[0] - 1

    def draw(i: Array) -> Image | None:
        return noise(i) if sampler.stochastic and noise is not None else None

    def body(x: Image, inputs: tuple[Array, Array, Array]) -> tuple[Image, Image | None]:
        i, t, t_next = inputs
        x = sampler.step(problem, x, t, t_next, draw(i))
        return x, x if path else None

    start = x
    x, states = jax.lax.scan(body, x, (jnp.arange(steps - 1), nodes[:-2], nodes[1:-1]))
    x = sampler.last(problem, x, nodes[-2], nodes[-1], draw(jnp.asarray(steps - 1)))
    return (x, jnp.concatenate([start[None], states, x[None]])) if path else x
