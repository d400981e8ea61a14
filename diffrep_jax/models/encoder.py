"""The encoder x_0 -> z: DiffAE's half U-Net without time (Preechakul et al. 2022), as DBAE uses it too."""

from typing import Annotated, Any

import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.fields import NOT_EMPTY, Count, Width, Within
from diffrep_jax.models import layers
from diffrep_jax.models.layers import Attention, Conv, Dense, GroupNorm
from diffrep_jax.types import Array, Image


class EncoderBlock(nn.Module):
    """GN, SiLU, [half the size], one conv; plus the skip. Unconditioned blocks have no second half."""

    features: int
    down: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Image:
        h = GroupNorm(silu=True, name="norm")(x)
        if self.down:
            h, x = layers.downsample(h), layers.downsample(x)
        h = Conv(self.features, dtype=self.dtype, name="conv")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + h


class HalfUNet(nn.Module):
    """Images [b, h, w, c] -> features [b, features], float32; the attributes are those of the U-Net.

    `attention` names the image sizes that have (one-headed) attention after each block. Whatever `dtype` is, the last
    norm and the last layer compute in float32.
    """

    features: int
    width: Width
    mult: Annotated[tuple[Annotated[int, Within(1, 256)], ...], NOT_EMPTY]
    blocks: Annotated[int, Within(1, 256)]
    attention: tuple[Count, ...]
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image) -> Array:
        residual = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        h = Conv(self.width * self.mult[0], dtype=self.dtype, name="conv_in")(x)
        for level, mult in enumerate(self.mult):
            if level > 0:
                h = residual(h.shape[-1], True, self.dtype, name=f"down{level}_resample")(h)
            for i in range(self.blocks):
                h = residual(self.width * mult, False, self.dtype, name=f"down{level}_block{i}")(h)
                if h.shape[1] in self.attention:
                    h = Attention(1, dtype=self.dtype, name=f"down{level}_attention{i}")(h)
        h = residual(h.shape[-1], False, self.dtype, name="middle_block0")(h)
        h = Attention(1, dtype=self.dtype, name="middle_attention")(h)
        h = residual(h.shape[-1], False, self.dtype, name="middle_block1")(h)
        h = GroupNorm(silu=True, name="norm_out")(h.astype(jnp.float32)).mean((1, 2))
        return Dense(self.features, name="out")(h)
