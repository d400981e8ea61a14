"""The U-Net F(c_in x_t, c_noise; x_T, z): ADM's (Dhariwal & Nichol 2021) with a code, as DBAE conditions it.

x_T joins the input on the channels; the code joins the time embedding, which scales and shifts every residual block.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.models import layers
from diffrep_jax.models.convolution import upsample
from diffrep_jax.models.layers import Attention, Conv, Dense, GroupNorm
from diffrep_jax.types import Array, Code, Image, Keys, Time


class ResBlock(nn.Module):
    """GN, SiLU, [resample], conv; GN scaled and shifted by `emb`, SiLU, dropout, conv (zero init); plus the skip."""

    features: int
    resample: str = "none"  # "up", "down" or "none": by 2, on h after the first SiLU and on the skip
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, emb: Array, keys: Keys | None) -> Image:
        h = GroupNorm(silu=True, name="norm_in")(x)
        if self.resample == "down":
            h, x = layers.downsample(h), layers.downsample(x)
        h = Conv(self.features, up=self.resample == "up", dtype=self.dtype, name="conv_in")(h)
        if self.resample == "up":
            x = upsample(x)
        scale_shift = Dense(2 * self.features, dtype=self.dtype, name="emb")(jax.nn.silu(emb))
        h = GroupNorm(silu=True, name="norm_out")(h, scale_shift)
        h = layers.dropout(h, self.dropout, keys)
        h = Conv(self.features, zero_init=True, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + h


class UNet(nn.Module):
    """Noisy image, time, endpoint and code -> an image of `channels`, float32.

    Attributes:
      width: channels of the first level; mult: their multiples by level, each level at half the size of the last.
      blocks: residual blocks a level on the way down (one more on the way up).
      attention: the image sizes that have attention; head_dim: channels a head.
      remat: recompute each residual block in the backward pass instead of storing its activations.
    """

    channels: int
    width: int
    mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    head_dim: int
    dropout: float
    remat: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, c_noise: Time, xT: Image, z: Code, keys: Keys | None = None) -> Image:
        """x, xT [b, h, w, c]; c_noise [b]; z [b, d]; keys [b] turn dropout on."""
        emb = Dense(4 * self.width, dtype=self.dtype, name="time_in")(layers.time_embedding(c_noise, self.width))
        emb = Dense(4 * self.width, dtype=self.dtype, name="time_out")(jax.nn.silu(emb))
        emb = emb + Dense(4 * self.width, dtype=self.dtype, name="code")(z)

        residual = nn.remat(ResBlock) if self.remat else ResBlock
        count = 0

        def block(h: Image, features: int, name: str, resample: str = "none") -> Image:
            nonlocal count
            count += 1
            module = residual(features, resample, self.dropout, self.dtype, name=name)
            return module(h, emb, layers.fold_in(keys, count))

        def attend(h: Image, name: str) -> Image:
            return Attention(max(1, h.shape[-1] // self.head_dim), dtype=self.dtype, name=name)(h)

        h = Conv(self.width * self.mult[0], dtype=self.dtype, name="conv_in")(jnp.concatenate([x, xT], -1))
        skips = [h]
        for level, mult in enumerate(self.mult):
            if level > 0:
                h = block(h, h.shape[-1], f"down{level}_resample", "down")
                skips.append(h)
            for i in range(self.blocks):
                h = block(h, self.width * mult, f"down{level}_block{i}")
                if h.shape[1] in self.attention:
                    h = attend(h, f"down{level}_attention{i}")
                skips.append(h)

        h = block(h, h.shape[-1], "middle_block0")
        h = attend(h, "middle_attention")
        h = block(h, h.shape[-1], "middle_block1")

        for level, mult in reversed(list(enumerate(self.mult))):
            for i in range(self.blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), self.width * mult, f"up{level}_block{i}")
                if h.shape[1] in self.attention:
                    h = attend(h, f"up{level}_attention{i}")
            if level > 0:
                h = block(h, h.shape[-1], f"up{level}_resample", "up")

        h = GroupNorm(silu=True, name="norm_out")(h.astype(jnp.float32))
        return Conv(self.channels, zero_init=True, name="conv_out")(h)
