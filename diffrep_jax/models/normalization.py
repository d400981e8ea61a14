"""Group norm with its modulation and SiLU: plain operations, or one differentiation rule on CPUs, and in 16 bits on
NVIDIA's GPUs.

Such a rule keeps only the input of the activations, and has no forward-mode derivative (`forms.plain`). On a GPU the
time is that of reading and writing images: in bfloat16 `few_reads` does so 11 times for value and gradient, the plain
form, as XLA fuses it, 15 times.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from diffrep_jax.forms import by_platform
from diffrep_jax.types import Array, Image


def group_norm(x: Image, gain: Array, bias: Array, groups: int, silu: bool = False, epsilon: float = 1e-5) -> Image:
    """act(GN(x) gain + bias) with gain, bias [b, c], in their type; the result has the type of x.

    Sums run over the pixels first, then over the channels of a group: many times faster than the other way on a CPU.
    """
    cpu, cuda, elsewhere = (
        functools.partial(form, groups=groups, silu=silu, epsilon=epsilon) for form in (one_rule, few_reads, plain)
    )
    return by_platform(x, gain, bias, cpu=cpu, cuda=cuda if x.dtype.itemsize == 2 else None, elsewhere=elsewhere)


def plain(x: Image, gain: Array, bias: Array, groups: int, silu: bool, epsilon: float) -> Image:
    """The form for any platform: JAX differentiates it."""
    return _forward(x, gain, bias, groups, silu, epsilon, _two_reads)[0]


def one_rule(x: Image, gain: Array, bias: Array, groups: int, silu: bool, epsilon: float) -> Image:
    """The form for a CPU."""
    return _one_rule(x, gain, bias, groups, silu, epsilon)


def few_reads(x: Image, gain: Array, bias: Array, groups: int, silu: bool, epsilon: float) -> Image:
    """The form for NVIDIA's GPUs in 16 bits: statistics in one read, the gradient behind SiLU in the type of x."""
    return _few_reads(x, gain, bias, groups, silu, epsilon)


def _forward(
    x: Image,
    gain: Array,
    bias: Array,
    groups: int,
    silu: bool,
    epsilon: float,
    channel_statistics: Callable[[Image], tuple[Array, Array]],
) -> tuple[Image, tuple[Array, ...]]:
    wide = x.astype(gain.dtype)
    mean, inverse_std = _of_groups(*channel_statistics(wide), groups, epsilon)
    u = _affine(wide, mean, inverse_std * gain, bias)
    y = u * jax.nn.sigmoid(u) if silu else u
    return y.astype(x.dtype), (x, gain, bias, mean, inverse_std)


def _backward(
    groups: int, silu: bool, epsilon: float, saved: tuple[Array, ...], dy: Image, stored: Callable[[Image, Any], Image]
) -> tuple[Image, Array, Array]:
    x, gain, bias, mean, inverse_std = saved
    wide, du = x.astype(gain.dtype), dy.astype(gain.dtype)
    pixels = x.shape[1] * x.shape[2]
    if silu:
        u = _affine(wide, mean, inverse_std * gain, bias)
        s = jax.nn.sigmoid(u)
        du = stored(du * (s * (1 + u * (1 - s))), x.dtype)
    d_bias = du.sum((1, 2))
    d_gain = (du * (wide - _per_pixel(mean))).sum((1, 2)) * inverse_std
    # One reduction for both, and not joined along the batch: that axis is split over devices.
    means = _group_mean(jnp.stack([d_bias * gain, d_gain * gain], axis=1), groups) / pixels
    shift, slope = means[:, 0], means[:, 1] * inverse_std
    centred = (wide - _per_pixel(mean)) * _per_pixel(slope * inverse_std)
    dx = du * _per_pixel(inverse_std * gain) - centred - _per_pixel(shift * inverse_std)
    return dx.astype(x.dtype), d_gain, d_bias


def _rule(channel_statistics: Callable[[Image], tuple[Array, Array]], stored: Callable[[Image, Any], Image]) -> Any:
    """Group norm that is differentiated by `_backward`; stored(du, x's type) is du as it is kept between its uses."""

    @functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
    def norm(*arguments: Any) -> Image:
        return forward(*arguments)[0]

    def forward(
        x: Image, gain: Array, bias: Array, groups: int, silu: bool, epsilon: float
    ) -> tuple[Image, tuple[Array, ...]]:
        return _forward(x, gain, bias, groups, silu, epsilon, channel_statistics)

    def backward(groups: int, silu: bool, epsilon: float, saved: tuple[Array, ...], dy: Image) -> Any:
        return _backward(groups, silu, epsilon, saved, dy, stored)

    norm.defvjp(forward, backward)
    return norm


def _two_reads(x: Image) -> tuple[Array, Array]:
    """The mean and the variance over pixels, [b, c] each. No difference of large squares is taken."""
    mean = x.mean((1, 2))
    return mean, jnp.square(x - _per_pixel(mean)).mean((1, 2))


def _one_read(x: Image) -> tuple[Array, Array]:
    """The same: the difference from the first pixel is summed, and its square, at once.

    That pixel is at most sqrt(pixels) standard deviations off, so that the squares are no larger than needed.
    """
    first = x[:, 0, 0]
    off = x - _per_pixel(first)
    mean, square = off.mean((1, 2)), jnp.square(off).mean((1, 2))
    return first + mean, jnp.maximum(square - jnp.square(mean), 0)


def _of_groups(mean: Array, variance: Array, groups: int, epsilon: float) -> tuple[Array, Array]:
    """Those of channels -> the mean and 1/std of each channel's group, [b, c] each."""
    of_group = _group_mean(mean, groups)
    variance = _group_mean(variance + jnp.square(mean - of_group), groups)
    return of_group, lax.rsqrt(variance + epsilon)


def _group_mean(values: Array, groups: int) -> Array:
    """[..., c] -> the mean over each channel's group, [..., c]."""
    grouped = values.reshape(*values.shape[:-1], groups, -1)
    return jnp.broadcast_to(grouped.mean(-1, keepdims=True), grouped.shape).reshape(values.shape)


def _affine(x: Image, mean: Array, gain: Array, bias: Array) -> Image:
    return x * _per_pixel(gain) + _per_pixel(bias - mean * gain)


def _per_pixel(values: Array) -> Array:
    return values[:, None, None]


_one_rule = _rule(_two_reads, stored=lambda du, dtype: du)
# The barrier has XLA write du in that type: else it writes and reads float32.
_few_reads = _rule(_one_read, stored=lambda du, dtype: lax.optimization_barrier(du.astype(dtype)).astype(du.dtype))
