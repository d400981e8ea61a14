"""The latent prior of DiffAE: Diffusion Autoencoders (Preechakul et al., CVPR 2022, 2111.15640, section 3.4).

An auto-encoder alone has no codes to start from. A diffusion model of its training codes makes some: a DDPM whose
image is one code, normalised by the mean and the standard deviation of all of them in each dimension,

    z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps,     1000 steps of the same beta
    loss = E_t,eps |eps - eps_hat(z_t, t)|,  t uniform                                            (an MLP, L1)

Sampling is that of a DDPM from z_T ~ N(0, I); z_0 is not clipped, but PDAE and DiTi clip z_T and z_0 to [-1, 1]. Then
z = mean + std z_0, and the auto-encoder decodes it. Here a code is an image of one pixel with d channels. Mean and
deviation are buffers, part of the checkpoint, and with them the auto-encoder's fingerprint: the code of one fixed
picture, by which it is known again.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import Unconditional, check_dtype, freeze
from diffrep_jax.methods.networks import CodeSize, ImageSize, network
from diffrep_jax.models.apply import apply
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.latent_mlp import LatentMLP
from diffrep_jax.processes.base import diffuse
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.samplers.driver import Noise, Stepper
from diffrep_jax.types import Array, Code, Image, Keys, PyTree, Time

BUFFERS = ("mean", "std", "fingerprint")  # of all codes in each dimension, [d]; a fingerprint of zeros is unknown


@dataclasses.dataclass(frozen=True)
class LatentPrior(Unconditional):
    """The fields are the config's `method` section.

    Attributes:
      image_size: 1, as a code is an image of one pixel.
      channels: d, the size of the auto-encoder's codes.
      beta: of every step.
      dtype: "float32" or "bfloat16", the type of the network's computation.
      mlp: the network's own arguments (models/latent_mlp.py).
      clipped: sampling clips z_T and each estimate of z_0 to [-1, 1], as PDAE's and DiTi's; DiffAE's clips neither.
    """

    image_size: ImageSize
    channels: CodeSize
    beta: float
    dtype: str
    mlp: Annotated[Mapping[str, Any], network(LatentMLP)]
    clipped: bool = dataclasses.field(kw_only=True, default=False)

    makes_images = False
    changeable = (*Unconditional.changeable, "clipped")

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
    def bounded(self) -> bool:
        return self.clipped

    def endpoint(self, keys: Keys) -> Image:
        zT = super().endpoint(keys)
        return jnp.clip(zT, -1, 1) if self.clipped else zT

    @property
    def process(self) -> DiscreteVP:
        return DiscreteVP(beta_first=self.beta, beta_last=self.beta)

    @property
    def _mlp(self) -> LatentMLP:
        return LatentMLP(**self.mlp, dtype=jnp.dtype(self.dtype))

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        code = jnp.zeros(batch["image"].shape[:1] + (self.channels,), jnp.float32)
        mlp = initialize(self._mlp, rng, code, jnp.ones(code.shape[0]))
        buffers = {name: jnp.full((self.channels,), float(name == "std")) for name in BUFFERS}
        return {"params": {"mlp": mlp["params"]}, "batch_stats": {"codes": buffers}}

    def with_statistics(self, variables: PyTree, statistics: Mapping[str, np.ndarray]) -> PyTree:
        buffers = dict(variables["batch_stats"]["codes"])
        buffers |= {name: jnp.asarray(statistics[name], jnp.float32) for name in BUFFERS if name in statistics}
        return variables | {"batch_stats": {"codes": buffers}}

    def statistics(self, variables: PyTree) -> Mapping[str, Array]:
        return variables["batch_stats"]["codes"]

    def knows_its_data(self, variables: PyTree) -> bool:
        buffers = self.statistics(variables)
        return bool(buffers["fingerprint"].any() or buffers["mean"].any() or (buffers["std"] != 1).any())

    def generate(
        self, variables: PyTree, xT: Image, stepper: Stepper, plan: PyTree, noise: Noise | None = None
    ) -> Code:
        """z_T [n, 1, 1, d] -> codes of the auto-encoder [n, d]."""
        buffers = self.statistics(variables)
        return buffers["mean"] + buffers["std"] * super().generate(variables, xT, stepper, plan, noise)[:, 0, 0]

    def predict(self, variables: PyTree, x: Image, t: Time, keys: Keys | None = None) -> Image:
        eps_hat = apply(self._mlp, variables["params"]["mlp"], x.reshape(len(x), self.channels), t)
        return eps_hat.reshape(x.shape)

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        """x0 [b, 1, 1, d], codes as the auto-encoder gives them; a constant dimension becomes 0."""
        buffers = self.statistics(variables)
        z0 = (x0 - buffers["mean"]) / jnp.where(buffers["std"] > 0, buffers["std"], 1)
        eps_hat = self.predict(variables, diffuse(self.process, z0, jnp.zeros_like(z0), eps, t), t)
        return jnp.abs(eps - eps_hat).mean((1, 2, 3))


Method = LatentPrior
