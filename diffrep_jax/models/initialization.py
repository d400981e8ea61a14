"""Initial values: a module states the law of each parameter, and `initialize` draws them all on the host.

Drawing them inside Linen's own init costs half a minute of compilation for the published networks (each of the 500
leaves becomes a random-number kernel). `initialize` only traces init for its shapes and laws; NumPy draws the values in
a second, the same ones on every backend, each leaf from its own stream (seed, path). A plain `module.init` works too:
it draws other values of the same laws, by jax.random.
"""

import contextlib
import contextvars
import dataclasses
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from diffrep_jax.forms import plain
from diffrep_jax.types import Array, PyTree

# Whether initializers hand over their laws instead of values. It holds while `initialize` traces, in its thread alone.
_declaring = contextvars.ContextVar("declaring", default=False)


@struct.dataclass
class Declared(nn.meta.AxisMetadata):
    """A parameter's placeholder during init: its shape and the law of its values."""

    value: Any
    law: str = struct.field(pytree_node=False)
    number: float = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        return dataclasses.replace(self, value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        return self


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for weights and biases alike."""
    bound = fan_in**-0.5
    return _initializer("uniform", bound, lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound))


def normal_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """N(0, 2/fan_in): Kaiming's law for rectified layers."""
    std = (2 / fan_in) ** 0.5
    return _initializer("normal", std, lambda key, shape: std * jax.random.normal(key, shape))


def constant(value: float) -> nn.initializers.Initializer:
    """One value everywhere."""
    return _initializer("constant", value, lambda _, shape: jnp.full(shape, value, jnp.float32))


def unit_vector() -> nn.initializers.Initializer:
    """A random direction: a normal vector divided by its length."""

    def draw(key: Array, shape: tuple[int, ...]) -> Array:
        direction = jax.random.normal(key, shape)
        return direction / jnp.linalg.norm(direction)

    return _initializer("unit_vector", 1.0, draw)


def _initializer(law: str, number: float, draw: Callable[[Array, tuple[int, ...]], Array]) -> Any:
    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Any:
        if _declaring.get():
            return Declared(jnp.zeros(shape, dtype), law, number)
        return draw(key, shape).astype(dtype)

    return init


@contextlib.contextmanager
def _declarations() -> Iterator[None]:
    token = _declaring.set(True)
    try:
        yield
    finally:
        _declaring.reset(token)


def initialize(module: nn.Module, rng: Array, *args: Any, **kwargs: Any) -> PyTree:
    """The variables of a module, laid out as by `module.init(rng, *args, **kwargs)`; also under a trace."""
    with _declarations(), plain():  # no form changes a shape, and this one is traced soonest
        declared = jax.eval_shape(lambda: module.init(rng, *args, **kwargs))
    shapes = nn.meta.unbox(declared)
    laws = {
        jax.tree_util.keystr(path): (leaf.law, leaf.number)
        for path, leaf in jax.tree.leaves_with_path(declared, is_leaf=lambda x: isinstance(x, Declared))
    }

    def draw(key: np.ndarray) -> PyTree:
        return jax.tree.map_with_path(
            lambda path, leaf: _draw(key, jax.tree_util.keystr(path), laws, leaf.shape), shapes
        )

    return jax.pure_callback(draw, shapes, jax.random.key_data(rng))


def _draw(key: np.ndarray, path: str, laws: dict[str, tuple[str, float]], shape: tuple[int, ...]) -> np.ndarray:
    law, number = laws[path]
    if law == "constant":
        return np.full(shape, number, np.float32)
    random = np.random.Generator(np.random.Philox([zlib.crc32(path.encode()), *np.asarray(key).ravel().tolist()]))
    if law == "uniform":
        values = random.random(shape, np.float32)
        values *= 2 * number
        values -= number
        return values
    if law == "normal":
        return number * random.standard_normal(shape, np.float32)
    direction = random.standard_normal(shape, np.float32)
    return direction / np.linalg.norm(direction)
