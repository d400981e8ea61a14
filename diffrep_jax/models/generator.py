"""The generator z -> x_T: FastGAN with skip-layer excitation (Liu et al. 2021, arXiv 2101.04775), as DBAE uses it.

Spectral norm on every (bias-free) convolution, batch norm, gated linear units. Both norms have PyTorch's semantics:
training updates the running variance with the unbiased one and makes one power iteration; evaluation uses the stored
statistics and the stored u and v. Their buffers live in the collection "batch_stats". All computes in float32, as in
the published training, but for the convolutions where `dtype` is another.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.fields import Natural, Within
from diffrep_jax.models.convolution import conv, upsample_conv
from diffrep_jax.models.initialization import constant, uniform_fan_in, unit_vector
from diffrep_jax.types import Array, Code, Image

# Channels by nominal resolution, in multiples of the width (64 in the published networks).
_MULTIPLES = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5}
_EXCITED = {64: 4, 128: 8, 256: 16}  # features at the key are scaled by those at the value


class SpectralKernel(nn.Module):
    """A weight [..., in, out] divided by its largest singular value as a matrix [out, rest] (Miyato et al. 2018)."""

    shape: tuple[int, ...]
    fan_in: int

    @nn.compact
    def __call__(self, train: bool) -> Array:
        kernel = self.param("kernel", uniform_fan_in(self.fan_in), self.shape)
        matrix = kernel.reshape(-1, self.shape[-1]).T
        direction = lambda size: unit_vector()(self.make_rng("params"), (size,))  # noqa: E731
        u = self.variable("batch_stats", "u", direction, matrix.shape[0])
        v = self.variable("batch_stats", "v", direction, matrix.shape[1])
        if train and not self.is_initializing():
            fixed = jax.lax.stop_gradient(matrix)
            v.value = _normalize(fixed.T @ u.value)
            u.value = _normalize(fixed @ v.value)
        return kernel / (u.value @ (matrix @ v.value))


def _normalize(x: Array, epsilon: float = 1e-12) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), epsilon)


class BatchNorm(nn.Module):
    """Batch norm over all but the channels, epsilon 1e-5, momentum 0.1 for the new value, in float32.

    images: the statistics in training are of that many images at most, by equal parts of the batch one after the other,
    as a device sees its micro-batches; the running ones follow their mean. 0: of all of the batch.
    """

    images: int = 0

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Image:
        channels = (x.shape[-1],)
        scale = self.param("scale", constant(1), channels)
        bias = self.param("bias", constant(0), channels)
        mean = self.variable("batch_stats", "mean", constant(0), None, channels)
        var = self.variable("batch_stats", "var", constant(1), None, channels)
        x = x.astype(jnp.float32)
        if not train:
            return (x - mean.value) * (jax.lax.rsqrt(var.value + 1e-5) * scale) + bias
        parts = x.reshape(parts_of(len(x), self.images), -1, *x.shape[1:])
        part_mean = parts.mean((1, 2, 3), keepdims=True)
        centred = parts - part_mean
        part_var = (centred**2).mean((1, 2, 3), keepdims=True)
        if not self.is_initializing():
            n = parts[0].size // x.shape[-1]
            mean.value += 0.1 * (part_mean.mean((0, 1, 2, 3)) - mean.value)
            var.value += 0.1 * (part_var.mean((0, 1, 2, 3)) * (n / max(n - 1, 1)) - var.value)
        return (centred * (jax.lax.rsqrt(part_var + 1e-5) * scale) + bias).reshape(x.shape)


def parts_of(batch_size: int, images: int) -> int:
    """The smallest number of equal parts of a batch with at most `images` each, and at least half of that.

    1 where there is none, and for images=0.
    """
    if images <= 0 or batch_size <= images:
        return 1
    most = 2 * batch_size // images
    return next((parts for parts in range(-(-batch_size // images), most + 1) if batch_size % parts == 0), 1)


def _gated(x: Array) -> Array:
    """GLU: the first half of the channels, gated by the sigmoid of the second."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


class UpBlock(nn.Module):
    """Nearest x2, conv to twice the features, batch norm, GLU."""

    features: int
    norm_images: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, train: bool) -> Image:
        channels = x.shape[-1]
        kernel = SpectralKernel((3, 3, channels, 2 * self.features), 9 * channels, name="conv")(train)
        h = upsample_conv(x.astype(self.dtype), kernel.astype(self.dtype))
        return _gated(BatchNorm(self.norm_images, name="norm")(h, train)).astype(self.dtype)


class SkipExcitation(nn.Module):
    """Channel gains [b, 1, 1, features] in (0, 1) from the features of a smaller resolution."""

    features: int
    base: int

    @nn.compact
    def __call__(self, small: Image, train: bool) -> Image:
        b, size, _, channels = small.shape
        parts = (b, self.base, size // self.base, self.base, size // self.base, channels)
        pooled = small.astype(jnp.float32).reshape(parts).mean((2, 4))
        shape = (self.base, self.base, channels, self.features)
        squeeze = SpectralKernel(shape, self.base**2 * channels, name="squeeze")(train)
        h = jax.nn.silu(pooled.reshape(b, -1) @ squeeze.reshape(-1, self.features))
        excite = SpectralKernel((1, 1, self.features, self.features), self.features, name="excite")(train)
        return jax.nn.sigmoid(h @ excite[0, 0])[:, None, None]


class Generator(nn.Module):
    """Codes [b, d] -> images [b, image_size, image_size, channels], unbounded, float32.

    `image_size` is base * 2^k with a base of 4 to 7; the widths go by the nominal resolution 4 * 2^k.
    norm_images: how many images the statistics of batch norm are of in training, at most; 0: all of a batch.
    """

    image_size: int
    channels: int
    width: Annotated[int, Within(1, 65_536)]
    norm_images: Natural = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Code, train: bool) -> Image:
        base, doublings = base_and_doublings(self.image_size)
        widths = {size: max(1, int(m * self.width)) for size, m in _MULTIPLES.items()}
        first = 2 * widths[4]
        kernel = SpectralKernel((z.shape[-1], base, base, first), first * base**2, name="init_conv")(train)
        h = (z @ kernel.reshape(z.shape[-1], -1)).reshape(-1, base, base, first)
        features = {4: _gated(BatchNorm(self.norm_images, name="init_norm")(h, train))}
        for k in range(1, doublings + 1):
            size = 4 * 2**k
            h = UpBlock(widths[size], self.norm_images, self.dtype, name=f"up{size}")(features[size // 2], train)
            if size in _EXCITED:
                gains = SkipExcitation(widths[size], base, name=f"excite{size}")(features[_EXCITED[size]], train)
                h = h * gains.astype(h.dtype)
            features[size] = h
        kernel = SpectralKernel((1, 1, h.shape[-1], self.channels), h.shape[-1], name="to_image")(train)
        return conv(h.astype(jnp.float32), kernel)


def base_and_doublings(image_size: int) -> tuple[int, int]:
    """(base, k) with image_size = base * 2^k, base in 4..7, 1 <= k <= 6; ValueError where there is none."""
    for doublings in range(1, 7):
        base, rest = divmod(image_size, 2**doublings)
        if rest == 0 and 4 <= base <= 7:
            return base, doublings
    raise ValueError(f"image_size {image_size} is not 4, 5, 6 or 7 times a power of two between 8 and 448")
