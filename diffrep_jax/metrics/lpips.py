"""LPIPS v0.1 with AlexNet (Zhang et al. 2018, 1801.03924): the distance of images in features, weighted as people see.

The features after each of AlexNet's five ReLUs are scaled to unit length at every pixel; their squared differences are
weighted by heads that were fitted to people's judgements, and averaged over the pixels.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array, PyTree

SMALLEST = 31  # pixels a side: the second pooling has nothing to pool below

# AlexNet as in torchvision: number in its `features`, filters, kernel, stride, padding; pooled before or not.
_LAYERS = (
    (0, 64, 11, 4, 2, False),
    (3, 192, 5, 1, 2, True),
    (6, 384, 3, 1, 1, True),
    (8, 256, 3, 1, 1, False),
    (10, 256, 3, 1, 1, False),
)
_SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)  # of images in [-1, 1], to what AlexNet was trained on
_SCALE = np.array([0.458, 0.448, 0.450], np.float32)


def shapes() -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The tensors that are needed, {name: shape}, of torchvision's AlexNet and of the heads."""
    alexnet, heads, channels = {}, {}, 3
    for i, (number, filters, kernel, *_) in enumerate(_LAYERS):
        alexnet[f"features.{number}.weight"] = (filters, channels, kernel, kernel)
        alexnet[f"features.{number}.bias"] = (filters,)
        heads[f"lin{i}.model.1.weight"] = (1, filters, 1, 1)
        channels = filters
    return alexnet, heads


def weights(alexnet: Mapping[str, np.ndarray], heads: Mapping[str, np.ndarray]) -> PyTree:
    """The parameters of `distance` from the tensors of `shapes`."""
    return [
        {
            "kernel": np.transpose(alexnet[f"features.{number}.weight"], (2, 3, 1, 0)),
            "bias": np.asarray(alexnet[f"features.{number}.bias"]),
            "head": np.reshape(heads[f"lin{i}.model.1.weight"], -1),
        }
        for i, (number, *_) in enumerate(_LAYERS)
    ]


def distance(params: PyTree, x: Array, y: Array) -> Array:
    """LPIPS of each pair: [n, h, w, 1 or 3] x 2 in [-1, 1] -> [n], at least 0. h and w: SMALLEST or more."""
    total = jnp.zeros(x.shape[0])
    for layer, both in zip(params, _features(params, jnp.concatenate([x, y])), strict=True):
        one, other = jnp.split(_unit(both), 2)
        total += ((one - other) ** 2 @ layer["head"]).mean((1, 2))
    return total


def _features(params: PyTree, x: Array) -> list[Array]:
    """The outputs of the five ReLUs; grey images are repeated."""
    x = (jnp.broadcast_to(x, (*x.shape[:3], 3)).astype(jnp.float32) - _SHIFT) / _SCALE
    outputs = []
    for layer, (_, _, _, stride, padding, pooled) in zip(params, _LAYERS, strict=True):
        if pooled:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        x = jax.lax.conv_general_dilated(
            x,
            layer["kernel"],
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(x + layer["bias"])
        outputs.append(x)
    return outputs


def _unit(x: Array) -> Array:
    return x / (jnp.sqrt((x**2).sum(-1, keepdims=True)) + 1e-10)
