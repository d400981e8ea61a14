"""Convolutions, with gradients in the form that each platform runs fastest.

XLA's CPU backend runs some gradients of a convolution far below the speed of a matmul (benchmarks/RESULTS.md). There,
1 x 1 kernels, small maps and convolutions of an upsampled image are written as matmuls, and wide 3 x 3 kernels take
Winograd's algorithm (`models/winograd.py`). The choice is made by the platform that a program is compiled for and by
the shapes. The forms for a CPU have no forward-mode derivative.
"""

import functools
import operator
from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax

from diffrep_jax.forms import by_platform
from diffrep_jax.models import winograd
from diffrep_jax.types import Array, Image

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_SMALL_MAP = 64  # pixels; at 8 x 8 and below a matmul over patches beats the gradient convolutions


def conv(x: Image, kernel: Array, stride: int = 1) -> Image:
    """[b, h, w, in] with a kernel [k, k, in, out] of odd k, zero padding (k - 1) / 2 -> [b, h / stride, .., out]."""

    def plain(x: Image, kernel: Array) -> Image:
        return _conv(x, kernel, (kernel.shape[0] - 1) // 2, stride)

    if stride == 1 and kernel.shape[0] == 1:
        return by_platform(x, kernel, cpu=_conv1, elsewhere=plain)
    if stride == 1 and kernel.shape[0] == 3 and winograd.pays(x, kernel):
        return by_platform(x, kernel, cpu=winograd.conv, elsewhere=plain)
    if stride == 1 and kernel.shape[0] == 3 and x.shape[1] * x.shape[2] <= _SMALL_MAP:
        return by_platform(x, kernel, cpu=_conv3_small, elsewhere=plain)
    return plain(x, kernel)


def upsample(x: Image) -> Image:
    """Nearest neighbour, twice the size."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def upsample_conv(x: Image, kernel: Array) -> Image:
    """`conv(upsample(x), kernel)`, on the CPU for 3 x 3 kernels with 4/9 of the multiplications.

    Two of the three taps along an axis read the same source pixel, so each of the four output parities is a 2 x 2
    convolution of x. For small sources the border costs more than that saves.
    """

    def plain(x: Image, kernel: Array) -> Image:
        return conv(upsample(x), kernel)

    def by_parity(x: Image, kernel: Array) -> Image:
        return _parity_conv(x, _parity_kernels(kernel))

    if kernel.shape[0] == 3 and min(x.shape[1:3]) >= 8:
        return by_platform(x, kernel, cpu=by_parity, elsewhere=plain)
    return plain(x, kernel)


def _conv(x: Image, kernel: Array, padding: int, stride: int = 1) -> Image:
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, [(padding, padding)] * 2, dimension_numbers=_LAYOUT)


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _total(parts: Iterable[Array]) -> Array:
    return functools.reduce(operator.add, parts)


def _contract_rows(a: Array, b: Array) -> Array:
    """a^T b over everything but the channels."""
    return lax.dot_general(_rows(a), _rows(b), (((0,), (0,)), ((), ())))


@jax.custom_vjp
def _conv1(x: Image, kernel: Array) -> Image:
    return (_rows(x) @ kernel[0, 0]).reshape(*x.shape[:3], kernel.shape[-1])


def _conv1_forward(x: Image, kernel: Array) -> tuple[Image, tuple[Image, Array]]:
    return _conv1(x, kernel), (x, kernel)


def _conv1_backward(saved: tuple[Image, Array], dy: Image) -> tuple[Image, Array]:
    x, kernel = saved
    return (_rows(dy) @ kernel[0, 0].T).reshape(x.shape), _contract_rows(x, dy)[None, None]


_conv1.defvjp(_conv1_forward, _conv1_backward)


@jax.custom_vjp
def _conv3_small(x: Image, kernel: Array) -> Image:
    return _conv(x, kernel, 1)


def _conv3_small_forward(x: Image, kernel: Array) -> tuple[Image, tuple[Image, Array]]:
    return _conv(x, kernel, 1), (x, kernel)


def _conv3_small_backward(saved: tuple[Image, Array], dy: Image) -> tuple[Image, Array]:
    x, kernel = saved
    b, h, w, channels = x.shape
    pad = ((0, 0), (1, 1), (1, 1), (0, 0))
    taps = [(i, j) for i in range(3) for j in range(3)]

    # Input: one matmul makes the nine contributions of every pixel, nine shifted sums place them.
    parts = _rows(dy) @ kernel.reshape(9 * channels, -1).T
    parts = jnp.pad(parts.reshape(b, h, w, 9 * channels), pad)
    dx = _total(
        parts[:, 2 - i : 2 - i + h, 2 - j : 2 - j + w, (3 * i + j) * channels : (3 * i + j + 1) * channels]
        for i, j in taps
    )
    # Kernel: x against the nine shifts of dy.
    padded = jnp.pad(dy, pad)
    shifts = jnp.concatenate([padded[:, 2 - i : 2 - i + h, 2 - j : 2 - j + w] for i, j in taps], axis=-1)
    dk = _contract_rows(x, shifts).reshape(channels, 3, 3, -1)
    return dx, dk.transpose(1, 2, 0, 3)


_conv3_small.defvjp(_conv3_small_forward, _conv3_small_backward)

_PARITIES = [(i, j) for i in range(2) for j in range(2)]


def _parity_kernels(kernel: Array) -> Array:
    """The four 2 x 2 kernels, side by side in output channels, that a 3 x 3 one becomes after nearest x2."""
    even = jnp.stack([kernel[0], kernel[1] + kernel[2]])  # reads rows i - 1, i
    odd = jnp.stack([kernel[0] + kernel[1], kernel[2]])  # reads rows i, i + 1
    four = []
    for rows in (even, odd):
        four.append(jnp.stack([rows[:, 0], rows[:, 1] + rows[:, 2]], axis=1))
        four.append(jnp.stack([rows[:, 0] + rows[:, 1], rows[:, 2]], axis=1))
    return jnp.concatenate(four, axis=-1)


@jax.custom_vjp
def _parity_conv(x: Image, kernels: Array) -> Image:
    b, h, w, _ = x.shape
    out = kernels.shape[-1] // 4
    y = _conv(x, kernels, 1)  # [b, h + 1, w + 1, 4 out]: (i, j) reads source rows i - 1, i and columns j - 1, j
    lines = []
    for i in range(2):
        parts = [y[:, i : i + h, j : j + w, (2 * i + j) * out : (2 * i + j + 1) * out] for j in range(2)]
        lines.append(jnp.stack(parts, axis=3).reshape(b, h, 2 * w, out))
    return jnp.stack(lines, axis=2).reshape(b, 2 * h, 2 * w, out)


def _parity_conv_forward(x: Image, kernels: Array) -> tuple[Image, tuple[Image, Array]]:
    return _parity_conv(x, kernels), (x, kernels)


def _parity_conv_backward(saved: tuple[Image, Array], dy: Image) -> tuple[Image, Array]:
    x, kernels = saved
    b, h, w, c = x.shape
    split = [jnp.pad(dy[:, i::2, j::2], ((0, 0), (i, 1 - i), (j, 1 - j), (0, 0))) for i, j in _PARITIES]
    dz = jnp.concatenate(split, axis=-1)
    parts = (_rows(dz) @ kernels.reshape(4 * c, -1).T).reshape(b, h + 1, w + 1, 4 * c)
    dx = _total(
        parts[:, 1 - i : 1 - i + h, 1 - j : 1 - j + w, (2 * i + j) * c : (2 * i + j + 1) * c] for i, j in _PARITIES
    )
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, i : i + h + 1, j : j + w + 1] for i, j in _PARITIES], axis=-1)
    return dx, _contract_rows(patches, dz).reshape(kernels.shape)


_parity_conv.defvjp(_parity_conv_forward, _parity_conv_backward)
