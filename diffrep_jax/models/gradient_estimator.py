"""PDAE's gradient estimator G(x_t, z, t) (Zhang et al. 2022, arXiv 2212.12990, section 3.3): a second way up.

It reads the features and the time embedding of the frozen DDPM's way down, and has a middle and a way up of its own,
whose residual blocks the code scales and shifts after the time.
"""

from flax import linen as nn

from diffrep_jax.models.layers import Dense
from diffrep_jax.models.unet import Levels
from diffrep_jax.types import Array, Code, Image, Keys


class GradientEstimator(Levels):
    """The attributes are those of the U-Net whose features it reads."""

    @nn.compact
    def __call__(self, emb: Array, skips: list[Image], z: Code, keys: Keys | None = None) -> Image:
        """emb [b, 4 width] and skips as `UNet.with_features` gives them; z [b, d] -> G [b, h, w, channels]."""
        code = Dense(4 * self.width, dtype=self.dtype, name="code")(z)
        block, attend = self.block_and_attend(emb, keys, code)
        return self.up(skips, block, attend)
