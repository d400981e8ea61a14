"""DDPM: Denoising Diffusion Probabilistic Models (Ho et al., NeurIPS 2020, 2006.11239), the base of PDAE and DiTi.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps          1000 steps, x_0 at t = -1
    loss = E_t,eps |eps - eps_hat(x_t, t)|^2,  t uniform             (eq. 14)

Sampling starts from x_T ~ N(0, I); eta = 1 is the paper's algorithm 2, eta = 0 is DDIM.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp

from diffrep_jax.methods.base import Unconditional, check_dtype, freeze
from diffrep_jax.methods.networks import CodeSize, ImageSize, check_levels, network
from diffrep_jax.models.apply import apply
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from diffrep_jax.processes.base import diffuse
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.types import Array, Image, Keys, PyTree, Time


@dataclasses.dataclass(frozen=True)
class DDPM(Unconditional):
    """The fields are the config's `method` section.

    Attributes:
      image_size, channels: of the images, which are square, in [-1, 1].
      dtype: "float32" or "bfloat16", the type of the network's computation.
      remat: recompute residual blocks in the backward pass.
      unet: the network's own arguments (models/unet.py).
    """

    image_size: ImageSize
    channels: CodeSize
    dtype: str
    remat: bool
    unet: Annotated[Mapping[str, Any], network(UNet)]

    process = DiscreteVP()

    def __post_init__(self):
        object.__setattr__(self, "unet", freeze(self.unet))
        check_dtype(self.dtype)
        check_levels(self.unet, self.image_size, "unet")

    @property
    def _unet(self) -> UNet:
        return UNet(self.channels, **self.unet, remat=self.remat, dtype=jnp.dtype(self.dtype))

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        image = jnp.zeros_like(batch["image"], jnp.float32)
        unet = initialize(self._unet, rng, image, jnp.ones(image.shape[0]))
        return {"params": {"unet": unet["params"]}, "batch_stats": {}}

    def predict(self, variables: PyTree, x: Image, t: Time, keys: Keys | None = None) -> Image:
        return apply(self._unet, variables["params"]["unet"], x, t, None, None, keys)

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        eps_hat = self.predict(variables, diffuse(self.process, x0, jnp.zeros_like(x0), eps, t), t, dropout_keys)
        return ((eps - eps_hat) ** 2).mean((1, 2, 3))


Method = DDPM
