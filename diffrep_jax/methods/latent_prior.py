"""The latent prior of DiffAE: Diffusion Autoencoders (Preechakul et al., CVPR 2022, 2111.15640, section 3.4).

An auto-encoder alone has no codes to start from. A diffusion model of its training codes makes some: a DDPM whose
image is one code, normalised by the mean and the standard deviation of all of them in each dimension,

    z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps,     1000 steps of the same beta
    loss = E_t,eps |eps - eps_hat(z_t, t)|,  t uniform                                            (an MLP, L1)

Sampling is that of a DDPM from z_T ~ N(0, I); z_0 is not clipped. Then z = mean + std z_0, and the auto-encoder decodes
it. Here a code is an image of one pixel with d channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import Unconditional, check_dtype, freeze
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.latent_mlp import LatentMLP
from diffrep_jax.processes.base import diffuse
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.types import Array, Image, Keys, PyTree, Time


@dataclasses.dataclass(frozen=True)
class LatentPrior(Unconditional):
    """The fields are the config's `method` section.

    Attributes:
      image_size: 1, as a code is an image of one pixel.
      channels: d, the size of the auto-encoder's codes.
      beta: of every step.
      dtype: "float32" or "bfloat16", the type of the network's computation.
      mlp: the network's own arguments (models/latent_mlp.py).
    """

    image_size: int
    channels: int
    beta: float
    dtype: str
    mlp: Mapping[str, Any]

    makes_images = False

    def __post_init__(self):
        object.__setattr__(self, "mlp", freeze(self.mlp))
        check_dtype(self.dtype)
        if self.image_size != 1:
            raise UserError(
                f"config.method.image_size={self.image_size} must be 1: a code is an image of one pixel. Set the size "
                "of the codes with --config.data.channels."
            )
        if not 0 < self.beta < 1:
            raise UserError(f"config.method.beta={self.beta} is outside (0, 1); the paper has 0.008.")

    @property
    def process(self) -> DiscreteVP:
        return DiscreteVP(beta_first=self.beta, beta_last=self.beta)

    @property
    def _mlp(self) -> LatentMLP:
        return LatentMLP(**self.mlp, dtype=jnp.dtype(self.dtype))

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        code = jnp.zeros(batch["image"].shape[:1] + (self.channels,), jnp.float32)
        mlp = initialize(self._mlp, rng, code, jnp.ones(code.shape[0]))
        return {"params": {"mlp": mlp["params"]}, "batch_stats": {}}

    def predict(self, variables: PyTree, x: Image, t: Time, keys: Keys | None = None) -> Image:
        eps_hat = self._mlp.apply({"params": variables["params"]["mlp"]}, x.reshape(len(x), self.channels), t)
        return eps_hat.reshape(x.shape)

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        eps_hat = self.predict(variables, diffuse(self.process, x0, jnp.zeros_like(x0), eps, t), t)
        return jnp.abs(eps - eps_hat).mean((1, 2, 3))

    def param_labels(self, params: PyTree) -> PyTree:
        return jax.tree.map(lambda _: "train", params)


Method = LatentPrior
