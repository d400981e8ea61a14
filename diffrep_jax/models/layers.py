"""The layers that all networks share: convolution, dense, group norm, attention, resampling, time embedding, dropout.

Images are NHWC. Parameters are float32; `dtype` is the type of the computation. Group norm and softmax compute in
float32. Initialisation is PyTorch's default (uniform, bound 1/sqrt(fan_in), for weights and biases), and epsilons are
PyTorch's, since the published recipes were tuned on them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from diffrep_jax.models.attention import attention
from diffrep_jax.models.convolution import conv, upsample_conv
from diffrep_jax.models.initialization import constant, normal_fan_in, uniform_fan_in
from diffrep_jax.models.normalization import group_norm
from diffrep_jax.types import Array, Image, Keys, Time


class Conv(nn.Module):
    """A convolution with bias and zero padding (size - 1) / 2, at every `stride`-th pixel; `up`: of twice the image."""

    features: int
    size: int = 3
    zero_init: bool = False
    up: bool = False
    stride: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        fan_in = self.size**2 * x.shape[-1]
        init = constant(0) if self.zero_init else uniform_fan_in(fan_in)
        kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", init, (self.features,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return _plus_bias(upsample_conv(x, kernel) if self.up else conv(x, kernel, self.stride), bias)


class Dense(nn.Module):
    """A linear layer with bias on the last axis; `kaiming`: its kernel starts at N(0, 2/fan_in)."""

    features: int
    kaiming: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = normal_fan_in if self.kaiming else uniform_fan_in
        kernel = self.param("kernel", init(x.shape[-1]), (x.shape[-1], self.features))
        bias = self.param("bias", uniform_fan_in(x.shape[-1]), (self.features,))
        return _plus_bias(x.astype(self.dtype) @ kernel.astype(self.dtype), bias)


def _plus_bias(x: Array, bias: Array) -> Array:
    """In the type of x; the bias's gradient, a sum over all pixels of a batch, is computed in the bias's type."""
    return x + jnp.broadcast_to(bias, x.shape).astype(x.dtype)


class GroupNorm(nn.Module):
    """Group norm over 32 channel groups (fewer where the channels do not divide), epsilon 1e-5, in float32.

    Each `scale_shift` [b, 2c] (the scale first) modulates the values so far by (1 + scale) and shift: ADM's AdaGN.
    With `silu` the activation follows.
    """

    silu: bool = False
    groups: int = 32

    @nn.compact
    def __call__(self, x: Image, *scale_shifts: Array) -> Image:
        channels = x.shape[-1]
        gain = self.param("scale", constant(1), (channels,))
        bias = self.param("bias", constant(0), (channels,))
        gain, bias = (jnp.broadcast_to(value, (x.shape[0], channels)) for value in (gain, bias))
        for scale_shift in scale_shifts:
            scale, shift = jnp.split(scale_shift.astype(gain.dtype), 2, axis=-1)
            gain, bias = gain * (1 + scale), bias * (1 + scale) + shift
        return group_norm(x, gain, bias, math.gcd(self.groups, channels), self.silu)


class Attention(nn.Module):
    """Residual self-attention over all positions; heads are split before q, k and v (channel = head, q|k|v, dim)."""

    heads: int
    zero_init: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        b, h, w, c = x.shape
        qkv = Conv(3 * c, 1, dtype=self.dtype, name="qkv")(GroupNorm(name="norm")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(b, h * w, self.heads, 3, c // self.heads), 3, 0)
        out = attention(q, k, v).reshape(b, h, w, c)
        return x + Conv(c, 1, zero_init=self.zero_init, dtype=self.dtype, name="proj")(out)


def downsample(x: Image) -> Image:
    """The mean of 2 x 2 blocks, half the size."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def time_embedding(t: Time, width: int) -> Array:
    """Sinusoids [b, width] of a time: cosines, then sines, of frequencies 10000^(-i / half)."""
    half = width // 2
    angles = t[:, None].astype(jnp.float32) * jnp.exp(-math.log(10000) * jnp.arange(half) / half)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def dropout(x: Image, rate: float, keys: Keys | None) -> Image:
    """Inverted dropout, drawn from each example's own key: the same mask in any batch. None: no dropout.

    One random byte decides about an element, a quarter of the bits that a uniform number takes. Each example drops its
    elements with 256 rate, rounded down or up, in 256; which of the two is drawn such that the mean is `rate`.
    """
    if keys is None or rate == 0:
        return x
    size = math.prod(x.shape[1:])
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 4) + 1,)))(keys)
    # The barrier keeps XLA from making a word four times over, once for each of its bytes.
    first, words = jnp.split(lax.optimization_barrier(words), (1,), axis=1)
    rest, least = math.modf(256 * rate)
    least = (first < jnp.uint32(int(rest * 2**32))) + jnp.int32(least)
    values = lax.bitcast_convert_type(words, jnp.uint8).reshape(len(x), -1)[:, :size]
    scaled = x.astype(jnp.promote_types(x.dtype, jnp.float32)) / (1 - rate)  # 1 - rate is no bfloat16
    return jnp.where((values >= least).reshape(x.shape), scaled, 0).astype(x.dtype)


def fold_in(keys: Keys | None, number: int) -> Keys | None:
    """New keys for the sub-computation `number` of each example."""
    return None if keys is None else jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
