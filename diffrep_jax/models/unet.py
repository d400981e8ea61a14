"""The U-Net of ADM (Dhariwal & Nichol 2021): eps(x_t, t) for DDPM, eps(x_t, t, z) for DiffAE, or
F(c_in x_t, c_noise; x_T, z) for DBAE.

The time's embedding scales and shifts every residual block. DBAE's condition: x_T joins the input on the channels, the
code joins the embedding. DiffAE's: the code scales every residual block after the time.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.fields import NOT_EMPTY, Count, Width, Within
from diffrep_jax.models import layers
from diffrep_jax.models.convolution import upsample
from diffrep_jax.models.layers import Attention, Conv, Dense, GroupNorm
from diffrep_jax.types import Array, Code, Image, Keys, Time

Block = Callable[..., Image]
Attend = Callable[[Image, str], Image]


class ResBlock(nn.Module):
    """GN, SiLU, [resample], conv; GN scaled and shifted by `emb`, SiLU, dropout, conv (zero init); plus the skip.

    With `code`, that scales and shifts the normalised values once more (PDAE), or only scales them (DiffAE).
    """

    features: int
    resample: str = "none"  # "up", "down" or "none": by 2, on h after the first SiLU and on the skip
    dropout: float = 0.0
    code_shifts: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Image, emb: Array, keys: Keys | None, code: Array | None = None) -> Image:
        h = GroupNorm(silu=True, name="norm_in")(x)
        if self.resample == "down":
            h, x = layers.downsample(h), layers.downsample(x)
        h = Conv(self.features, up=self.resample == "up", dtype=self.dtype, name="conv_in")(h)
        if self.resample == "up":
            x = upsample(x)
        scale_shifts = [Dense(2 * self.features, dtype=self.dtype, name="emb")(jax.nn.silu(emb))]
        if code is not None:
            widths = (self.features, self.features if self.code_shifts else 0)
            scale_shift = Dense(sum(widths), dtype=self.dtype, name="code")(jax.nn.silu(code))
            scale_shifts.append(jnp.pad(scale_shift, ((0, 0), (0, self.features - widths[1]))))
        h = GroupNorm(silu=True, name="norm_out")(h, *scale_shifts)
        h = layers.dropout(h, self.dropout, keys)
        h = Conv(self.features, zero_init=True, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, dtype=self.dtype, name="skip")(x)
        return x + h


class Levels(nn.Module):
    """What a U-Net and PDAE's second way up share: the plan of the levels.

    Attributes:
      width: channels of the first level; mult: their multiples by level, each level at half the size of the last.
      blocks: residual blocks a level on the way down (one more on the way up).
      attention: the image sizes that have attention; head_dim: channels a head, or -1: `heads` heads.
      emb_width: of the time's embedding; -1: 4 width.
      remat: recompute each residual block in the backward pass instead of storing its activations.
    """

    channels: int
    width: Width
    mult: Annotated[tuple[Annotated[int, Within(1, 256)], ...], NOT_EMPTY]
    blocks: Annotated[int, Within(1, 256)]
    attention: tuple[Count, ...]
    head_dim: Annotated[int, Within(1, also=(-1,))]
    dropout: Annotated[float, Within(0, 1, below=True)]
    heads: Count = 1
    emb_width: Annotated[int, Within(1, 65_536, also=(-1,))] = -1
    remat: bool = False
    dtype: Any = jnp.float32

    def block_and_attend(
        self, emb: Array, keys: Keys | None, code: Array | None = None, code_shifts: bool = True
    ) -> tuple[Block, Attend]:
        """(block(h, features, name, resample), attend(h, name)), which make the layers; each block has its dropout."""
        residual = nn.remat(ResBlock) if self.remat else ResBlock
        count = 0

        def block(h: Image, features: int, name: str, resample: str = "none") -> Image:
            nonlocal count
            count += 1
            module = residual(features, resample, self.dropout, code_shifts, self.dtype, name=name)
            return module(h, emb, layers.fold_in(keys, count), code)

        def attend(h: Image, name: str) -> Image:
            heads = self.heads if self.head_dim == -1 else max(1, h.shape[-1] // self.head_dim)
            return Attention(heads, dtype=self.dtype, name=name)(h)

        return block, attend

    def down(self, h: Image, block: Block, attend: Attend) -> list[Image]:
        """The features that the way up reads, `h` the first of them; the last one is where the middle starts."""
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
        return skips

    def up(self, skips: list[Image], block: Block, attend: Attend) -> Image:
        """The middle, the way up along the skips, and the output: an image of `channels`, float32."""
        h, skips = skips[-1], list(skips)
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


class UNet(Levels):
    """Noisy image and time, for DBAE also endpoint and code, for DiffAE the code -> an image of `channels`, float32.

    Attributes:
      code_scales: the code scales every residual block; else it joins the embedding.
    """

    code_scales: bool = False

    @nn.compact
    def with_features(
        self, x: Image, t: Time, xT: Image | None = None, z: Code | None = None, keys: Keys | None = None
    ) -> tuple[Image, Array, list[Image]]:
        """(the output, the embedding of t, the features that the way up reads)."""
        width = 4 * self.width if self.emb_width == -1 else self.emb_width
        emb = Dense(width, dtype=self.dtype, name="time_in")(layers.time_embedding(t, self.width))
        emb = Dense(width, dtype=self.dtype, name="time_out")(jax.nn.silu(emb))
        if z is not None and not self.code_scales:
            emb = emb + Dense(width, dtype=self.dtype, name="code")(z)
        block, attend = self.block_and_attend(emb, keys, z if self.code_scales else None, code_shifts=False)
        x = x if xT is None else jnp.concatenate([x, xT], -1)
        h = Conv(self.width * self.mult[0], dtype=self.dtype, name="conv_in")(x)
        skips = self.down(h, block, attend)
        return self.up(skips, block, attend), emb, skips

    def __call__(
        self, x: Image, t: Time, xT: Image | None = None, z: Code | None = None, keys: Keys | None = None
    ) -> Image:
        """x, xT [b, h, w, c]; t [b], as the network sees it; z [b, d]; keys [b] turn dropout on."""
        return self.with_features(x, t, xT, z, keys)[0]
