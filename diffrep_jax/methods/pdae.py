"""PDAE: Unsupervised Representation Learning from Pre-trained Diffusion Probabilistic Models (Zhang et al., NeurIPS
2022, 2212.12990).

A frozen DDPM eps_hat(x_t, t) knows nothing of the image behind x_t, so that its posterior mean has a gap to the true
one. A code z = Enc(x_0) fills it, through a gradient estimator G(x_t, z, t) that stands for grad log p(z | x_t):

    eps = eps_hat(x_t, t) + k(t) G(x_t, z, t),     k(t) = -sqrt(alpha_t) (1 - alpha_bar_{t-1}) / sqrt(1 - alpha_bar_t)
    loss = E_t,eps [ w(t) |eps - (eps_hat + k(t) G)|^2 ],     w = snr^0.1 / (1 + snr),  t uniform          (eq. 10-13)

with snr = alpha_bar_t / (1 - alpha_bar_t). The loss trains Enc and G. Sampling is DDIM with sqrt(1 - alpha_bar_t)
in place of -k(t), as the classifier guidance of DDIM has it:

    D = (x_t - c (eps_hat - c G)) / b,     b = sqrt(alpha_bar_t),  c = sqrt(1 - alpha_bar_t)

x_T ~ N(0, I), or the stochastic code that DDIM upward finds. Trajectory interpolation mixes the G's of two codes.

A self-supervised loss on the encoder may join (methods/ssl.py), as in the baselines of DiTi's paper.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from diffrep_jax.methods.base import (
    AutoEncoder,
    DiscreteTraining,
    Mixture,
    Views,
    check_dtype,
    freeze,
    split_keys,
)
from diffrep_jax.methods.networks import CodeSize, ImageSize, check_convolutions, check_levels, network
from diffrep_jax.methods.ssl import LABEL, SelfSupervised, self_supervised
from diffrep_jax.models.apply import apply
from diffrep_jax.models.conv_encoder import ConvEncoder
from diffrep_jax.models.gradient_estimator import GradientEstimator
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from diffrep_jax.processes.base import diffuse, per_image
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.processes.noise_prediction import denoised_of, noise_weight, normal_endpoint
from diffrep_jax.samplers.drift import Denoiser
from diffrep_jax.types import Array, Code, Image, Keys, PyTree, Scalar, Time

UNGUIDED = 0.3  # of the time-steps, the first ones, if the code was sampled: official `stop_percent`


@dataclasses.dataclass(frozen=True)
class PDAE(DiscreteTraining, AutoEncoder):
    """The fields are the config's `method` section.

    Attributes:
      image_size, channels: of the images, which are square, in [-1, 1].
      latent_dim: d, the size of z.
      dtype: "float32" or "bfloat16", that of the U-Nets' computation; encoder and heads compute in float32.
      remat: recompute residual blocks in the backward pass.
      unet: the arguments of the frozen U-Net and of the gradient estimator (models/unet.py).
      encoder: the encoder's (models/conv_encoder.py).
      ssl: a self-supervised loss on the encoder (methods/ssl.py); empty: none.
    """

    image_size: ImageSize
    channels: CodeSize
    latent_dim: CodeSize
    dtype: str
    remat: bool
    unet: Annotated[Mapping[str, Any], network(UNet)]
    encoder: Annotated[Mapping[str, Any], network(ConvEncoder)]
    ssl: Mapping[str, Any] = dataclasses.field(kw_only=True, default=FrozenDict())

    mixes = True
    process = DiscreteVP()

    def __post_init__(self):
        for name in ("unet", "encoder", "ssl"):
            object.__setattr__(self, name, freeze(getattr(self, name)))
        self_supervised(self.ssl)  # refuses what does not fit
        check_dtype(self.dtype)
        check_levels(self.unet, self.image_size, "unet")
        check_convolutions(self.encoder, self.image_size)

    @property
    def _unet(self) -> UNet:
        return UNet(self.channels, **self.unet, remat=self.remat, dtype=jnp.dtype(self.dtype))

    @property
    def _gradient_estimator(self) -> GradientEstimator:
        return GradientEstimator(self.channels, **self.unet, remat=self.remat, dtype=jnp.dtype(self.dtype))

    @property
    def _encoder(self) -> ConvEncoder:
        return ConvEncoder(self.latent_dim, **self.encoder)

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        image = jnp.zeros_like(batch["image"], jnp.float32)
        z, t = jnp.zeros((image.shape[0], self.latent_dim)), jnp.ones(image.shape[0])
        r_unet, r_estimator, r_encoder = jax.random.split(rng, 3)
        unet = initialize(self._unet, r_unet, image, t)["params"]
        features = jax.eval_shape(lambda params: self._frozen({"params": {"unet": params}}, image, t)[1:], unet)
        emb, skips = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), features)
        params = {
            "unet": unet,
            "gradient_estimator": initialize(self._gradient_estimator, r_estimator, emb, skips, z)["params"],
            "encoder": initialize(self._encoder, r_encoder, image)["params"],
        }
        if self._ssl:
            params["ssl"] = self._ssl.init(jax.random.fold_in(rng, 3), self.latent_dim)
        return {"params": params, "batch_stats": {}}

    # z, x_T and D

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        return apply(self._encoder, variables["params"]["encoder"], x0)

    def endpoint(self, variables: PyTree, z: Code, keys: Keys) -> Image:
        return normal_endpoint(keys, (self.image_size, self.image_size, self.channels))

    def denoiser(self, variables: PyTree, z: Code | Mixture, xT: Image) -> Denoiser:
        if isinstance(z, Mixture):
            return self.mixed_denoiser(variables, [z.first, z.second], [1 - z.share, z.share])
        return self.mixed_denoiser(variables, [z], [1.0])

    def denoiser_without_code(self, variables: PyTree, xT: Image) -> Denoiser:
        return self.mixed_denoiser(variables, [], [])

    def denoiser_of_sample(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        """Without G in the last UNGUIDED part of the way down, as the official code samples."""
        return self.mixed_denoiser(variables, [z], [1.0], shift_from=UNGUIDED * self.process.steps)

    def mixed_denoiser(
        self, variables: PyTree, codes: Sequence[Code], weights: Sequence[Array | float], shift_from: float = 0.0
    ) -> Denoiser:
        """D(x_t, t), unclipped, with the weighted sum of the codes' G's: trajectory interpolation (section 4.3).

        A weight is a number, or one for each image [b]; no codes leave the DDPM as it is.
        Below the time `shift_from` G is left out, which stops the guidance of sampled codes.
        """

        def denoise(x: Image, t: Array) -> Image:
            times = jnp.broadcast_to(t, x.shape[:1])
            eps, emb, skips = self._frozen(variables, x, times)
            shifts = [self._estimate(variables, emb, skips, self.code_at(z, times)) for z in codes]
            mixed = [jnp.reshape(weight, (-1, 1, 1, 1)) * G for weight, G in zip(weights, shifts, strict=True)]
            shift = sum(mixed, jnp.zeros_like(eps))
            c = per_image(self.process.coefficients(times)[2], x)
            guided = eps - jnp.where(per_image(times, x) >= shift_from, c * shift, 0)
            return denoised_of(self.process, guided, x, times)

        return denoise

    def _frozen(self, variables: PyTree, x: Image, t: Time) -> tuple[Image, Array, list[Image]]:
        """(eps_hat, the time's embedding, the features that G reads): no gradient is computed for any of it."""
        params = jax.lax.stop_gradient(variables["params"]["unet"])
        return apply(self._unet, params, x, t, method="with_features")

    def _estimate(self, variables: PyTree, emb: Array, skips: list[Image], z: Code, keys: Keys | None = None) -> Image:
        """G(x_t, z, t)."""
        return apply(self._gradient_estimator, variables["params"]["gradient_estimator"], emb, skips, z, keys)

    # What DiTi has its own way of

    def code_at(self, z: Code, t: Time) -> Code:
        """What G is given of the code at time t, in sampling: all of it."""
        return z

    def training_codes(self, z: Code, t: Time) -> list[Code]:
        """What G is given of the code in training: one term of the loss for each."""
        return [z]

    # Training

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        """The loss of each image [b] for given draws, a mean over pixels; dropout, of G, is on where there are keys."""
        xt = diffuse(self.process, x0, jnp.zeros_like(x0), eps, t)
        eps_hat, emb, skips = self._frozen(variables, xt, t)
        codes = self.training_codes(self.encode(variables, x0), t)
        keys = [None] * len(codes) if dropout_keys is None else split_keys(dropout_keys, len(codes))
        k = per_image(self.shift_coefficient(t), x0)
        shifts = [self._estimate(variables, emb, skips, z, key) for z, key in zip(codes, keys, strict=True)]
        return self.weight(t) * sum(((eps - (eps_hat + k * shift)) ** 2).mean((1, 2, 3)) for shift in shifts)

    def loss_weight(self, t: Any) -> Any:
        """With c(t) for -k(t), as in sampling: at the first steps the loss sees less of G than D does."""
        return self.weight(t) * noise_weight(self.process, t)

    def shift_coefficient(self, t: Time) -> Array:
        """k(t)."""
        now, before = self.process.alpha_bar(t), self.process.alpha_bar(t - 1)
        return -jnp.sqrt(now / before) * (1 - before) / jnp.sqrt(1 - now)

    def weight(self, t: Time) -> Array:
        """w(t)."""
        alpha_bar = self.process.alpha_bar(t)
        snr = alpha_bar / (1 - alpha_bar)
        return snr**0.1 / (1 + snr)

    # The self-supervised loss, on a batch of its own

    @property
    def _ssl(self) -> SelfSupervised | None:
        return self_supervised(self.ssl)

    @property
    def views(self) -> Views | None:
        return self._ssl.views if self._ssl else None

    def loss(
        self, variables: PyTree, batch: dict[str, Array], keys: Keys, train: bool
    ) -> tuple[Scalar, dict[str, Scalar], PyTree]:
        loss, metrics, batch_stats = super().loss(variables, batch, keys, train)
        return loss * self._ssl.main_weight if self._ssl else loss, metrics, batch_stats

    def view_loss(self, variables: PyTree, views: dict[str, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        params = variables["params"]
        codes = [self.encode(variables, views[name]) for name in ("view1", "view2")]
        if self._ssl is None:
            raise ValueError("this PDAE has no loss on views: method.ssl is empty")
        return self._ssl.loss(params["ssl"], params["encoder"], codes[0], codes[1])

    def param_labels(self, params: PyTree) -> PyTree:
        labels = {"unet": "frozen", "gradient_estimator": "train", "encoder": "train", "ssl": LABEL}
        return jax.tree.map_with_path(lambda path, _: labels[path[0].key], params)


Method = PDAE
