"""The heads of self-supervised losses: small MLPs on a code, which only training has a use for."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.models.initialization import constant
from diffrep_jax.models.layers import Dense
from diffrep_jax.types import Array, Code


class BatchNorm(nn.Module):
    """Batch norm over the examples, epsilon 1e-5: by the statistics of this batch alone, none are kept."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", constant(1), x.shape[-1:])
        bias = self.param("bias", constant(0), x.shape[-1:])
        centred = x - x.mean(0)
        return centred * (jax.lax.rsqrt((centred**2).mean(0) + 1e-5) * scale) + bias


class Head(nn.Module):
    """Codes [b, d] -> [b, widths[-1]], float32: linear layers with a ReLU after each but the last.

    Attributes:
      widths: of the layers.
      norm: batch norm after each layer but the last, before the ReLU; norm_out: after the last as well.
    """

    widths: tuple[int, ...]
    norm: bool = False
    norm_out: bool = False

    @nn.compact
    def __call__(self, z: Code) -> Array:
        h = z.astype(jnp.float32)
        last = len(self.widths) - 1
        for i, width in enumerate(self.widths):
            h = Dense(width, name=f"layer{i}")(h)
            if self.norm_out if i == last else self.norm:
                h = BatchNorm(name=f"norm{i}")(h)
            if i < last:
                h = jax.nn.relu(h)
        return h
