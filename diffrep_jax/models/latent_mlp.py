"""DiffAE's network eps(z_t, t) of the latent prior (Preechakul et al. 2022, arXiv 2111.15640): an MLP with skips."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffrep_jax.fields import Within
from diffrep_jax.models import layers
from diffrep_jax.models.initialization import constant
from diffrep_jax.models.layers import Dense
from diffrep_jax.types import Array, Code, Time


class LayerNorm(nn.Module):
    """Layer norm over the last axis, epsilon 1e-5, in float32."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", constant(1), x.shape[-1:])
        bias = self.param("bias", constant(0), x.shape[-1:])
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + bias


class LatentMLP(nn.Module):
    """Noisy code [b, d] and time [b] -> noise [b, d], float32.

    Attributes:
      width: of the hidden layers; layers: how many there are with the last, plain one.
      time_width: of the sinusoids of the time.
    Each hidden layer is linear, times 1 + a linear function of the time's embedding, layer norm, SiLU; the input joins
    that of every layer but the first. Hidden layers start with Kaiming's normal kernels, as the official ones.
    """

    width: Annotated[int, Within(1, 65_536)]
    layers: Annotated[int, Within(1, 1000)]
    time_width: Annotated[int, Within(2, 65_536, multiple=2)]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Code, t: Time) -> Code:
        emb = Dense(z.shape[-1], dtype=self.dtype, name="time_in")(layers.time_embedding(t, self.time_width))
        emb = Dense(z.shape[-1], dtype=self.dtype, name="time_out")(jax.nn.silu(emb))
        h = z
        for i in range(self.layers - 1):
            h = Dense(self.width, kaiming=True, dtype=self.dtype, name=f"layer{i}")(h)
            h = h * (1 + Dense(self.width, kaiming=True, dtype=self.dtype, name=f"scale{i}")(jax.nn.silu(emb)))
            h = jax.nn.silu(LayerNorm(name=f"norm{i}")(h))
            h = jnp.concatenate([h, z.astype(h.dtype)], axis=-1)
        return Dense(z.shape[-1], name="out")(h)
