"""The 2048 features of the Frechet distance: InceptionV3 up to its last pooling, as in the network of the first FIDs.

Szegedy et al. 2016 (1512.00567), Heusel et al. 2017 (1706.08500). The network is data, the table NETWORK; names are
those of torchvision. It differs from torchvision's network in its weights and in its poolings: averages leave the
padding out, and the last block takes the maximum.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array, PyTree

SIZE = 299  # pixels a side, whatever the images have
FEATURES = 2048
CLASSES = "fc.weight"  # [1008, 2048], for the inception score; files without it have all the rest
_EPSILON = 1e-3  # of the batch normalisation


class Conv(NamedTuple):
    """A convolution without bias, a batch normalisation at its running statistics, a ReLU."""

    name: str
    filters: int
    height: int = 1
    width: int = 1
    stride: int = 1
    padded: bool = True


class Mixed(NamedTuple):
    """Parallel branches whose outputs are concatenated as channels. A tuple in a branch forks it in the same way."""

    name: str
    branches: tuple


def _mixed_a(name: str, pooled: int) -> Mixed:
    return Mixed(
        name,
        (
            [Conv("branch1x1", 64)],
            [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5, 5)],
            [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3, 3), Conv("branch3x3dbl_3", 96, 3, 3)],
            ["mean", Conv("branch_pool", pooled)],
        ),
    )


def _mixed_c(name: str, inner: int) -> Mixed:
    double = [Conv(f"branch7x7dbl_{i}", inner, *size) for i, size in enumerate([(1, 1), (7, 1), (1, 7), (7, 1)], 1)]
    return Mixed(
        name,
        (
            [Conv("branch1x1", 192)],
            [Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, 1, 7), Conv("branch7x7_3", 192, 7, 1)],
            [*double, Conv("branch7x7dbl_5", 192, 1, 7)],
            ["mean", Conv("branch_pool", 192)],
        ),
    )


def _mixed_e(name: str, pooling: str) -> Mixed:
    def fork(first: str, second: str) -> tuple:
        return [Conv(first, 384, 1, 3)], [Conv(second, 384, 3, 1)]

    return Mixed(
        name,
        (
            [Conv("branch1x1", 320)],
            [Conv("branch3x3_1", 384), fork("branch3x3_2a", "branch3x3_2b")],
            [
                Conv("branch3x3dbl_1", 448),
                Conv("branch3x3dbl_2", 384, 3, 3),
                fork("branch3x3dbl_3a", "branch3x3dbl_3b"),
            ],
            [pooling, Conv("branch_pool", 192)],
        ),
    )


NETWORK = (
    Conv("Conv2d_1a_3x3", 32, 3, 3, 2, False),
    Conv("Conv2d_2a_3x3", 32, 3, 3, 1, False),
    Conv("Conv2d_2b_3x3", 64, 3, 3),
    "halve",
    Conv("Conv2d_3b_1x1", 80),
    Conv("Conv2d_4a_3x3", 192, 3, 3, 1, False),
    "halve",
    _mixed_a("Mixed_5b", 32),
    _mixed_a("Mixed_5c", 64),
    _mixed_a("Mixed_5d", 64),
    Mixed(
        "Mixed_6a",
        (
            [Conv("branch3x3", 384, 3, 3, 2, False)],
            [
                Conv("branch3x3dbl_1", 64),
                Conv("branch3x3dbl_2", 96, 3, 3),
                Conv("branch3x3dbl_3", 96, 3, 3, 2, False),
            ],
            ["halve"],
        ),
    ),
    _mixed_c("Mixed_6b", 128),
    _mixed_c("Mixed_6c", 160),
    _mixed_c("Mixed_6d", 160),
    _mixed_c("Mixed_6e", 192),
    Mixed(
        "Mixed_7a",
        (
            [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 3, 2, False)],
            [
                Conv("branch7x7x3_1", 192),
                Conv("branch7x7x3_2", 192, 1, 7),
                Conv("branch7x7x3_3", 192, 7, 1),
                Conv("branch7x7x3_4", 192, 3, 3, 2, False),
            ],
            ["halve"],
        ),
    ),
    _mixed_e("Mixed_7b", "mean"),
    _mixed_e("Mixed_7c", "max"),
)


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that are needed, {name: shape}, of a PyTorch state dict."""
    wanted = {}
    for name, conv, channels in _convolutions(NETWORK, 3, ""):
        wanted[f"{name}.conv.weight"] = (conv.filters, channels, conv.height, conv.width)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            wanted[f"{name}.bn.{leaf}"] = (conv.filters,)
    return wanted


def _convolutions(steps: tuple | list, channels: int, prefix: str) -> Iterator[tuple[str, Conv, int]]:
    """(full name, convolution, input channels), in order; steps are those of a branch or of the network."""
    for step in steps:
        if isinstance(step, Conv):
            yield f"{prefix}{step.name}", step, channels
        elif not isinstance(step, str):
            inner = f"{prefix}{step.name}." if isinstance(step, Mixed) else prefix
            for branch in _branches(step):
                yield from _convolutions(branch, channels, inner)
        channels = _width(step, channels)


def _branches(step: Mixed | tuple) -> tuple:
    return step.branches if isinstance(step, Mixed) else step


def _width(step: Conv | Mixed | tuple | str, channels: int) -> int:
    """The channels after a step."""
    if isinstance(step, str):
        return channels
    if isinstance(step, Conv):
        return step.filters
    total = 0
    for branch in _branches(step):
        width = channels
        for inner in branch:
            width = _width(inner, width)
        total += width
    return total


def weights(state: Mapping[str, np.ndarray]) -> PyTree:
    """The parameters of `features` from the tensors of `shapes`, the batch normalisation folded into the kernels."""
    params = {}
    for name, _, _ in _convolutions(NETWORK, 3, ""):
        gain, bias, mean, variance = (
            np.asarray(state[f"{name}.bn.{leaf}"], np.float64)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        )
        gain = gain / np.sqrt(variance + _EPSILON)
        kernel = np.transpose(state[f"{name}.conv.weight"], (2, 3, 1, 0)) * gain
        params[name] = {"kernel": kernel.astype(np.float32), "shift": (bias - mean * gain).astype(np.float32)}
    if CLASSES in state:
        params["classes"] = np.asarray(state[CLASSES], np.float32).T
    return params


def probabilities(params: PyTree, features: Array) -> Array:
    """[n, 2048] -> [n, classes]. Without the last layer's bias, as the published inception scores are measured."""
    return jax.nn.softmax(features @ params["classes"])


def features(params: PyTree, images: Array) -> Array:
    """[n, h, w, 1 or 3] in [-1, 1], of any size -> [n, 2048].

    The resize is bilinear without antialias, as pytorch-fid has it.
    """
    x = jnp.broadcast_to(images, (*images.shape[:3], 3)).astype(jnp.float32)
    x = jax.image.resize(x, (len(x), SIZE, SIZE, 3), "bilinear", antialias=False)
    return _apply(params, NETWORK, x, "").mean((1, 2))


def _apply(params: PyTree, steps: tuple | list, x: Array, prefix: str) -> Array:
    for step in steps:
        if isinstance(step, str):
            x = _pool(step, x)
        elif isinstance(step, Conv):
            x = _convolve(params[f"{prefix}{step.name}"], step, x)
        else:
            inner = f"{prefix}{step.name}." if isinstance(step, Mixed) else prefix
            x = jnp.concatenate([_apply(params, branch, x, inner) for branch in _branches(step)], axis=-1)
    return x


def _convolve(layer: PyTree, conv: Conv, x: Array) -> Array:
    sides = (conv.height, conv.width)
    x = jax.lax.conv_general_dilated(
        x,
        layer["kernel"],
        (conv.stride, conv.stride),
        [(side // 2, side // 2) if conv.padded else (0, 0) for side in sides],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.nn.relu(x + layer["shift"])


def _pool(kind: str, x: Array) -> Array:
    """3 x 3: "halve" the maximum at every second pixel, "max" and "mean" at each, the image alone being counted."""
    window, padded = (1, 3, 3, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]
    if kind == "halve":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
    if kind == "max":
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 1, 1, 1), padded)

    def total(values: Array) -> Array:
        return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1, 1), padded)

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))
