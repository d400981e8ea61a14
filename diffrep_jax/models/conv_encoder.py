"""PDAE's encoder x_0 -> z: strided convolutions with one attention, flattened (Zhang et al. 2022, arXiv 2212.12990)."""

from typing import Annotated

from flax import linen as nn

from diffrep_jax.fields import NOT_EMPTY, Count, Width
from diffrep_jax.models.layers import Attention, Conv, Dense, GroupNorm
from diffrep_jax.types import Array, Image


class ConvEncoder(nn.Module):
    """Images [b, h, w, c] -> features [b, features], float32.

    Attributes:
      widths: channels of the convolutions, each of which halves the image; GN and SiLU follow each.
      attention: the image sizes that have attention, between a convolution and its GN; heads: how many it has.
    """

    features: int
    widths: Annotated[tuple[Width, ...], NOT_EMPTY]
    attention: tuple[Count, ...]
    heads: Count

    @nn.compact
    def __call__(self, x: Image) -> Array:
        for i, width in enumerate(self.widths):
            x = Conv(width, stride=2, name=f"conv{i}")(x)
            if x.shape[1] in self.attention:
                x = Attention(self.heads, name=f"attention{i}")(x)
            x = GroupNorm(silu=True, name=f"norm{i}")(x)
        x = x.reshape(x.shape[0], -1)
        return Dense(self.features, name="out")(x)
