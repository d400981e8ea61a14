"""A DDPM's images by their x_T, so that what edits an auto-encoder's edits them too."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from diffrep_jax.methods.base import AutoEncoder, Mixture, Unconditional
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.processes.noise_prediction import noise_weight
from diffrep_jax.samplers.drift import Denoiser
from diffrep_jax.types import Code, Image, Keys, PyTree


@dataclasses.dataclass(frozen=True)
class NoiseCoded(AutoEncoder):
    """A DDPM as an auto-encoder: z is empty, and the x_T that the ODE upward finds is all of an image."""

    ddpm: Unconditional

    latent_dim = 0

    @property
    def process(self) -> DiscreteVP:
        return self.ddpm.process

    @property
    def image_size(self) -> int:
        return self.ddpm.image_size

    @property
    def channels(self) -> int:
        return self.ddpm.channels

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        return jnp.zeros((len(x0), 0))

    def endpoint(self, variables: PyTree, z: Code, keys: Keys) -> Image:
        return self.ddpm.endpoint(keys)

    def denoiser(self, variables: PyTree, z: Code | Mixture, xT: Image) -> Denoiser:
        return self.ddpm.denoiser(variables)

    def loss_weight(self, t: Any) -> Any:
        return noise_weight(self.process, t)
