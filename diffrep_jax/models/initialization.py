"""Initial values: a module declares the law of each parameter, and `initialize` draws them all on the host.

Drawing them inside Linen's own init costs half a minute of compilation for the published networks (each of the 500
leaves becomes a random-number kernel). Here init is only traced for its shapes and laws; NumPy draws the values in a
second, the same ones on every backend, each leaf from its own stream (seed, path).
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from diffrep_jax.types import Array, PyTree


@struct.dataclass
class Declared(nn.meta.AxisMetadata):
    """A parameter's placeholder during init: its shape and the law of its values."""

    value: Any
    law: str = struct.field(pytree_node=False)
    number: float = struct.field(pytree_node=False)

    def unbox(self) -> Any:
        return self.value

    def replace_boxed(self, val: Any) -> "Declared":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        return self

    def remove_axis(self, index: int, params: dict[Any, Any]) -> "Declared":
        return self


def uniform_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): PyTorch's default for weights and biases alike."""
    return _declare("uniform", fan_in**-0.5)


def normal_fan_in(fan_in: int) -> nn.initializers.Initializer:
    """N(0, 2/fan_in): Kaiming's law for rectified layers."""
    return _declare("normal", (2 / fan_in) ** 0.5)


def constant(value: float) -> nn.initializers.Initializer:
    """One value everywhere."""
    return _declare("constant", value)


def unit_vector() -> nn.initializers.Initializer:
    """A random direction: a normal vector divided by its length."""
    return _declare("unit_vector", 1.0)


def _declare(law: str, number: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: Declared(jnp.zeros(shape, dtype), law, number)


def initialize(module: nn.Module, rng: Array, *args: Any, **kwargs: Any) -> PyTree:
    """The variables of a module, as `module.init(rng, *args, **kwargs)` would lay them out; also under a trace."""
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
