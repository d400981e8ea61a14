"""DBAE: Diffusion Bridge AutoEncoders for unsupervised representation learning (Kim et al., ICLR 2025, 2405.17111).

    z   = Enc(x_0)                                  the code; all information about x_0 passes through it
    x_T = Gen(z)                                    the endpoint, made from the code alone
    x_t = a(t) x_T + b(t) x_0 + c(t) eps            a diffusion bridge from x_0 to x_T          (DDBM, eq. 7-8)
    D   = c_skip x_t + c_out F(c_in x_t, c_noise; x_T, z)
    loss = E_t,eps [ 1/c_out^2 |D - x_0|^2 ],  t ~ U(t_min, T)        one loss trains Enc, Gen and F together

Reconstruction solves the bridge from x_T back to t = 0 with D in place of x_0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import NotNegative, Positive, Within
from diffrep_jax.methods.base import AutoEncoder, check_dtype, freeze, split_keys
from diffrep_jax.methods.networks import CodeSize, ImageSize, check_levels, network
from diffrep_jax.models.apply import apply
from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import Generator, base_and_doublings
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from diffrep_jax.processes.base import diffuse, per_image
from diffrep_jax.processes.bridge import VEBridge, VPBridge
from diffrep_jax.processes.preconditioning import Karras, Plain, c_noise
from diffrep_jax.samplers.drift import Denoiser
from diffrep_jax.samplers.grids import UniformLambda
from diffrep_jax.types import Array, Code, Image, Keys, PyTree, Scalar, Time

LAMBDA_NODES = 1024  # times between which training times that are uniform in lambda lie
BRIDGES = {"ve": VEBridge, "vp": VPBridge, "ve_simple": VEBridge, "vp_simple": VPBridge}


@dataclasses.dataclass(frozen=True)
class DBAE(AutoEncoder):
    """The fields are the config's `method` section.

    Attributes:
      image_size, channels: of the images, which are square, in [-1, 1].
      latent_dim: d, the size of z.
      bridge: "vp", "ve", or either with "_simple": no preconditioning, uniform weight.
      stochastic_encoder: z = mu + sigma noise instead of a deterministic code.
      sigma_data, sigma_data_end, cov_xy: standard deviations of x_0 and x_T and their covariance, for `Karras`.
      dtype: "float32" or "bfloat16", that of the U-Net's computation.
      outer_dtype: the same of the encoder's and the generator's convolutions; the paper's is "float32".
      remat: recompute residual blocks in the backward pass.
      unet, encoder, generator: the networks' own arguments (models/).
      lambda_times: the part of training times that is uniform in lambda = log b/c instead of in t; the paper's is 0.
        In t, 2.4 % of the times of the VP bridge have c/b above 5, where sampling begins (docs/samplers.md).
    """

    image_size: ImageSize
    channels: CodeSize
    latent_dim: CodeSize
    bridge: str
    stochastic_encoder: bool
    sigma_data: Positive
    sigma_data_end: NotNegative
    cov_xy: float
    dtype: str
    remat: bool
    unet: Annotated[Mapping[str, Any], network(UNet)]
    encoder: Annotated[Mapping[str, Any], network(HalfUNet)]
    generator: Annotated[Mapping[str, Any], network(Generator)]
    lambda_times: Annotated[float, Within(0, 1)] = 0.0
    outer_dtype: str = "float32"

    edits_normalised = False
    changeable = (*AutoEncoder.changeable, "outer_dtype", "generator.norm_images", "lambda_times")
    undetermined = FrozenDict(sigma_data_end=(0.0, 0.5))  # training had 0.5 and the official inference 0

    def __post_init__(self):
        for name in ("unet", "encoder", "generator"):
            object.__setattr__(self, name, freeze(getattr(self, name)))
        if self.bridge not in BRIDGES:
            raise unknown("bridge", self.bridge, BRIDGES, "config.method.bridge")
        check_dtype(self.dtype)
        check_dtype(self.outer_dtype, "outer_dtype")
        try:
            base_and_doublings(self.image_size)
        except ValueError as error:
            raise UserError(f"{error}; choose another config.data.image_size.") from None
        check_levels(self.unet, self.image_size, "unet")
        check_levels(self.encoder, self.image_size, "encoder")
        if abs(self.cov_xy) > (most := self.sigma_data * self.sigma_data_end):
            raise UserError(
                f"config.method.cov_xy {self.cov_xy} is no covariance of x_0 and x_T; use one of at most {most:g}, "
                "sigma_data times sigma_data_end."
            )

    # The process and the networks that the fields describe.

    @property
    def process(self) -> VEBridge | VPBridge:
        return BRIDGES[self.bridge]()

    @property
    def encodes_noise(self) -> bool:
        return self.stochastic_encoder

    @property
    def preconditioning(self) -> Karras | Plain:
        if self.bridge.endswith("_simple"):
            return Plain()
        return Karras(self.sigma_data, self.sigma_data_end, self.cov_xy)

    @property
    def _unet(self) -> UNet:
        return UNet(self.channels, **self.unet, remat=self.remat, dtype=jnp.dtype(self.dtype))

    @property
    def _encoder(self) -> HalfUNet:
        features = self.latent_dim * (2 if self.stochastic_encoder else 1)
        return HalfUNet(features, **self.encoder, remat=self.remat, dtype=jnp.dtype(self.outer_dtype))

    @property
    def _generator(self) -> Generator:
        return Generator(self.image_size, self.channels, **self.generator, dtype=jnp.dtype(self.outer_dtype))

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        image = jnp.zeros_like(batch["image"], jnp.float32)
        z, t = jnp.zeros((image.shape[0], self.latent_dim)), jnp.ones(image.shape[0])
        r_unet, r_encoder, r_generator = jax.random.split(rng, 3)
        generator = initialize(self._generator, r_generator, z, train=False)
        params = {
            "unet": initialize(self._unet, r_unet, image, t, image, z)["params"],
            "encoder": initialize(self._encoder, r_encoder, image)["params"],
            "generator": generator["params"],
        }
        return {"params": params, "batch_stats": {"generator": generator["batch_stats"]}}

    # z, x_T and D

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        out = apply(self._encoder, variables["params"]["encoder"], x0)
        if not self.stochastic_encoder:
            return out
        mu, log_sigma = jnp.split(5 * jnp.tanh(out / 5), 2, axis=-1)
        return mu if noise is None else mu + (jnp.exp(log_sigma) + 0.01) * noise

    def endpoint(self, variables: PyTree, z: Code, keys: Keys | None = None) -> Image:
        xT, _ = self._generate(variables, z, train=False)
        return xT

    def denoiser(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        def denoise(x: Image, t: Array) -> Image:
            return self._denoise(variables, x, jnp.broadcast_to(t, x.shape[:1]), xT, z)

        return denoise

    def _denoise(
        self,
        variables: PyTree,
        x: Image,
        t: Time,
        xT: Image,
        z: Code,
        keys: Keys | None = None,
        scaled: Karras | Plain | None = None,
    ) -> Image:
        scalings = (scaled or self.preconditioning).scalings(*self.process.coefficients(t))
        c_skip, c_out, c_in = (per_image(k, x) for k in scalings)
        F = apply(self._unet, variables["params"]["unet"], c_in * x, c_noise(t), xT, z, keys)
        return c_skip * x + c_out * F

    def _generate(self, variables: PyTree, z: Code, train: bool) -> tuple[Image, PyTree]:
        """(Gen(z), its buffers after that)."""
        own = {kind: variables[kind]["generator"] for kind in ("params", "batch_stats")}
        xT, new = self._generator.apply(own, z, train=train, mutable=["batch_stats"])
        return xT, new["batch_stats"]

    # Training

    def loss_weight(self, t: Any) -> Any:
        return self.preconditioning.weight(*self.process.coefficients(t))

    def loss(
        self, variables: PyTree, batch: dict[str, Array], keys: Keys, train: bool
    ) -> tuple[Scalar, dict[str, Scalar], PyTree]:
        x0 = batch["image"]
        k_t, k_eps, k_code, k_dropout = split_keys(keys, 4)
        t = self._sample_times(k_t)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(k_eps)
        code_noise = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(k_code)
        weighted, mse, new = self.loss_at(variables, x0, t, eps, code_noise, train, k_dropout if train else None)
        return weighted.mean(), {"loss": weighted.mean(), "mse": mse.mean()}, new

    def loss_at(
        self,
        variables: PyTree,
        x0: Image,
        t: Time,
        eps: Image,
        code_noise: Code | None = None,
        train: bool = False,
        dropout_keys: Keys | None = None,
    ) -> tuple[Array, Array, PyTree]:
        """The loss for given draws: (weight |D - x_0|^2 [b], |D - x_0|^2 [b], new batch_stats), means over pixels.

        `train` has batch norm use the batch and makes one power iteration; dropout is on where there are keys.
        """
        z = self.encode(variables, x0, code_noise)
        xT, batch_stats = self._generate(variables, z, train)
        xt = diffuse(self.process, x0, xT, eps, t)
        mse = ((self._denoise(variables, xt, t, xT, z, dropout_keys) - x0) ** 2).mean((1, 2, 3))
        return self.loss_weight(t) * mse, mse, {"generator": batch_stats}

    def candidate_errors(self, variables: PyTree, x0: Image, keys: Keys) -> dict[str, Array]:
        z = self.encode(variables, x0)
        xT = self.endpoint(variables, z)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(keys)

        def error(choice: tuple[Array, Array]) -> Array:
            sigma_data_end, gap = choice
            t = self.process.t_max - gap
            times = jnp.full(len(x0), t)
            usual = self.preconditioning
            scaled = dataclasses.replace(usual, sigma_data_end=sigma_data_end) if isinstance(usual, Karras) else usual
            denoised = self._denoise(variables, diffuse(self.process, x0, xT, eps, times), times, xT, z, scaled=scaled)
            return ((denoised - x0) ** 2).mean((1, 2, 3))

        # It matters where t is next to T: one U-Net, at all pairs of a value and a time, one after the other.
        values = jnp.asarray(self.undetermined["sigma_data_end"])
        pairs = jnp.meshgrid(values, jnp.asarray([1e-4, 1e-3]), indexing="ij")
        errors = jax.lax.map(error, tuple(x.ravel() for x in pairs))
        return {"sigma_data_end": errors.reshape(*pairs[0].shape, -1).mean(1).T}

    def _sample_times(self, keys: Keys) -> Time:
        """t ~ U(t_min, T), kept off T itself, where x_t carries nothing of x_0; a part of them uniform in lambda."""
        low, high = self.process.t_min, self.process.t_max
        if self.lambda_times:
            keys, k_lambda, k_which = split_keys(keys, 3)
        t = jnp.minimum(jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=high))(keys), high * (1 - 1e-6))
        if not self.lambda_times:
            return t
        nodes = UniformLambda(self.process, LAMBDA_NODES).down()[:-1]
        u, chance = jax.vmap(jax.random.uniform)(k_lambda), jax.vmap(jax.random.uniform)(k_which)
        return jnp.where(chance < self.lambda_times, jnp.interp(u, np.linspace(0, 1, LAMBDA_NODES), nodes), t)


Method = DBAE
