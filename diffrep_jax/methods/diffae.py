"""DiffAE: Diffusion Autoencoders (Preechakul et al., CVPR 2022, 2111.15640).

An image has two codes: z = Enc(x_0), which says what it shows, and x_T, as large as the image, which holds the rest.
The decoder is a DDIM whose U-Net sees z in every residual block,

    h <- (h (1 + s_t) + b_t) (1 + s_z),     (s_t, b_t) of the time, s_z of z                  (section 3.2)
    loss = E_t,eps |eps - eps_hat(x_t, t, z)|^2,  t uniform                                  (eq. 6)

which trains encoder and U-Net together. x_T ~ N(0, I), or what the DDIM run upward with z finds (eq. 8). Since the last
convolution starts at 0, so does eps_hat, and z has no gradient in the first step.

Codes to start from come from a latent prior (methods/latent_prior.py).
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from diffrep_jax.methods.base import AutoEncoder, DiscreteTraining, check_dtype, freeze
from diffrep_jax.methods.networks import CodeSize, ImageSize, check_levels, network
from diffrep_jax.models.apply import apply
from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from diffrep_jax.processes.base import diffuse
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.processes.noise_prediction import denoised_of, noise_weight, normal_endpoint
from diffrep_jax.samplers.drift import Denoiser
from diffrep_jax.types import Array, Code, Image, Keys, PyTree, Time


@dataclasses.dataclass(frozen=True)
class DiffAE(DiscreteTraining, AutoEncoder):
    """The fields are the config's `method` section.

    Attributes:
      image_size, channels: of the images, which are square, in [-1, 1].
      latent_dim: d, the size of z.
      dtype: "float32" or "bfloat16", that of the U-Net's computation; outer_dtype: the same of the encoder's.
      remat: recompute residual blocks in the backward pass.
      unet, encoder: the networks' own arguments (models/unet.py, models/encoder.py).
    """

    image_size: ImageSize
    channels: CodeSize
    latent_dim: CodeSize
    dtype: str
    remat: bool
    unet: Annotated[Mapping[str, Any], network(UNet)]
    encoder: Annotated[Mapping[str, Any], network(HalfUNet)]
    outer_dtype: str = "float32"

    changeable = (*AutoEncoder.changeable, "outer_dtype")
    process = DiscreteVP()

    def __post_init__(self):
        check_dtype(self.dtype)
        check_dtype(self.outer_dtype, "outer_dtype")
        for name in ("unet", "encoder"):
            object.__setattr__(self, name, freeze(getattr(self, name)))
            check_levels(getattr(self, name), self.image_size, name)

    @property
    def _unet(self) -> UNet:
        return UNet(self.channels, **self.unet, code_scales=True, remat=self.remat, dtype=jnp.dtype(self.dtype))

    @property
    def _encoder(self) -> HalfUNet:
        return HalfUNet(self.latent_dim, **self.encoder, remat=self.remat, dtype=jnp.dtype(self.outer_dtype))

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        image = jnp.zeros_like(batch["image"], jnp.float32)
        z, t = jnp.zeros((image.shape[0], self.latent_dim)), jnp.ones(image.shape[0])
        r_unet, r_encoder = jax.random.split(rng)
        params = {
            "unet": initialize(self._unet, r_unet, image, t, z=z)["params"],
            "encoder": initialize(self._encoder, r_encoder, image)["params"],
        }
        return {"params": params, "batch_stats": {}}

    # z, x_T and D

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        return apply(self._encoder, variables["params"]["encoder"], x0)

    def endpoint(self, variables: PyTree, z: Code, keys: Keys) -> Image:
        return normal_endpoint(keys, (self.image_size, self.image_size, self.channels))

    def denoiser(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        def denoise(x: Image, t: Array) -> Image:
            times = jnp.broadcast_to(t, x.shape[:1])
            return denoised_of(self.process, self.predict(variables, x, times, z), x, times)

        return denoise

    def predict(self, variables: PyTree, x: Image, t: Time, z: Code, keys: Keys | None = None) -> Image:
        """eps_hat(x_t, t, z); `keys` turn dropout on."""
        return apply(self._unet, variables["params"]["unet"], x, t, None, z, keys)

    # Training

    def loss_weight(self, t: Any) -> Any:
        return noise_weight(self.process, t)

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        xt = diffuse(self.process, x0, jnp.zeros_like(x0), eps, t)
        eps_hat = self.predict(variables, xt, t, self.encode(variables, x0), dropout_keys)
        return ((eps - eps_hat) ** 2).mean((1, 2, 3))


Method = DiffAE
