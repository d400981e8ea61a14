"""What tasks may ask of a method, and how a method is found: by the file name, `methods/<name>.py`'s `Method`.

`variables` is {"params": ..., "batch_stats": ...}; everything here is pure. Randomness comes as one key an example, so
that a result depends neither on the batch around it nor on how the batch is split over micro-batches or devices.
"""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.processes.noise_prediction import denoised_of, normal_endpoint
from diffrep_jax.samplers.drift import Denoiser, Problem
from diffrep_jax.samplers.driver import Noise, Stepper, sample
from diffrep_jax.types import Array, Code, Image, Keys, PyTree, Scalar, Time


@dataclasses.dataclass(frozen=True)
class Views:
    """A second batch for training, of its own size and in its own order: two views of each image.

    Attributes:
      batch_size: the number of images.
      augment, jitter: as in `data.view_batches`.
      start_step: the number of updates before the first that has them.
    """

    batch_size: int
    augment: bool
    jitter: float
    start_step: int


class Method(Protocol):
    """A frozen dataclass whose fields are the config's `method` section.

    `untold` names the fields that change results but that no checkpoint tells, with the values they may have;
    `evidence` is lowest for the right one.

    `views` is None, but for methods with a second loss, on views; these have `view_loss` too.
    """

    image_size: int
    channels: int
    untold: ClassVar[Mapping[str, tuple[Any, ...]]]
    views: Views | None

    def init(self, rng: Array, batch: dict[str, Array]) -> PyTree:
        """The variables; only the shapes of `batch` matter."""
        ...

    def loss(
        self, variables: PyTree, batch: dict[str, Array], keys: Keys, train: bool
    ) -> tuple[Scalar, dict[str, Scalar], PyTree]:
        """(mean loss, metrics, new batch_stats); `keys` [b]."""
        ...

    def view_loss(self, variables: PyTree, views: dict[str, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        """(what is added to the loss, metrics) for the whole batch of "view1" and "view2", [b, h, w, c] in [-1, 1].

        It may compare the images of a batch, so it is never split into micro-batches.
        """
        ...

    def evidence(self, variables: PyTree, x0: Image, keys: Keys) -> dict[str, Array]:
        """{field of `untold`: error of each image under each of the field's values, [b, values]}."""
        ...

    def param_labels(self, params: PyTree) -> PyTree:
        """A label a parameter, for `params` or any part of them: "train", "frozen", or one of the method's own.

        Parameters with such a label are trained as `config.optim.<label>` says, and not averaged: networks that
        serve a loss alone.
        """
        ...


class AutoEncoder:
    """A method with a code: image -> z -> x_T -> image. Subclasses say the first four, decoding follows."""

    process: Any
    image_size: int
    channels: int
    latent_dim: int
    views: Views | None = None

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        """x0 -> z [b, d]. `noise` [b, d] is for a stochastic encoder only; None takes its mean."""
        raise NotImplementedError

    def endpoint(self, variables: PyTree, z: Code, keys: Keys) -> Image:
        """z -> x_T, where decoding starts."""
        raise NotImplementedError

    def denoiser(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        """The closure D(x_t, t), unclipped; x_T and z need not belong together."""
        raise NotImplementedError

    def denoiser_of_sample(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        """D where z is a sample of a prior and no image's code; the same D for most methods."""
        return self.denoiser(variables, z, xT)

    @property
    def block_ends(self) -> np.ndarray:
        """The dimension behind each block of z, where the code is built of blocks; here it is one block."""
        return np.array([self.latent_dim])

    def invert(
        self, variables: PyTree, x0: Image, z: Code, xT: Image, sampler: Stepper, nodes: Array, path: bool = False
    ) -> Any:
        """x_0 -> the stochastic code, [b, h, w, c]: what decoding starts with beside z and x_T to come back to x_0.

        The same ODE upward, x_0 counting as the state at nodes[0], finds the state x at t = nodes[-1]; the code is
        x - a(t) x_T. For the Gaussian family, a = 0, that is the paper's inferred x_T, and `xT` plays no part; for a
        bridge it is what x has beside the fixed x_T. With `path` also all states. The denoiser is clipped, as in
        decoding.
        """
        out = sample(sampler, self._problem(self.denoiser(variables, z, xT), xT), x0, nodes, None, path)
        state = out[0] if path else out
        a = self.process.coefficients(jnp.asarray(nodes)[-1])[0]
        return (state - a * xT, out[1]) if path else state - a * xT

    def _problem(self, denoiser: Denoiser, xT: Image) -> Problem:
        return Problem(self.process, lambda x, t: jnp.clip(denoiser(x, t), -1, 1), xT)

    def decode(
        self,
        variables: PyTree,
        z: Code,
        xT: Image,
        sampler: Stepper,
        nodes: Array,
        noise: Noise | None = None,
        path: bool = False,
        stochastic_code: Image | None = None,
        sampled: bool = False,
    ) -> Any:
        """(z, x_T) -> x_0 in [-1, 1], the denoiser clipped as in the papers; with `path` also all states.

        It starts at x_T, or at a(t) x_T + what `invert` found, t = nodes[0]. `sampled`: the codes are samples of a
        prior (`denoiser_of_sample`).
        """
        start = xT
        if stochastic_code is not None:
            start = self.process.coefficients(jnp.asarray(nodes)[0])[0] * xT + stochastic_code
        denoiser = (self.denoiser_of_sample if sampled else self.denoiser)(variables, z, xT)
        out = sample(sampler, self._problem(denoiser, xT), start, nodes, noise, path)
        return (jnp.clip(out[0], -1, 1), out[1]) if path else jnp.clip(out, -1, 1)


class DiscreteTraining:
    """The training of methods on discrete steps: t uniform, one noise an image, the loss that `loss_at` gives there."""

    process: Any
    untold = FrozenDict()
    views: Views | None = None

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        """The loss of each image [b] for given draws, a mean over pixels; dropout is on where there are keys."""
        raise NotImplementedError

    def loss(
        self, variables: PyTree, batch: dict[str, Array], keys: Keys, train: bool
    ) -> tuple[Scalar, dict[str, Scalar], PyTree]:
        x0 = batch["image"]
        k_t, k_eps, k_dropout = split_keys(keys, 3)
        t = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.process.steps))(k_t).astype(jnp.float32)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(k_eps)
        loss = self.loss_at(variables, x0, t, eps, k_dropout if train else None).mean()
        return loss, {"loss": loss}, variables["batch_stats"]

    def evidence(self, variables: PyTree, x0: Image, keys: Keys) -> dict[str, Array]:
        return {}


class Unconditional(DiscreteTraining):
    """A method without a code: x_T ~ N(0, I) -> x_0, by the noise eps_hat that its network sees in x_t.

    Subclasses say `predict` and `loss_at`; generation follows. What is generated are images in [-1, 1], or where
    `makes_images` is False something else, which has no such range.
    """

    image_size: int
    channels: int
    makes_images: ClassVar[bool] = True

    def predict(self, variables: PyTree, x: Image, t: Time, keys: Keys | None = None) -> Image:
        """eps_hat(x_t, t); `keys` turn dropout on."""
        raise NotImplementedError

    def denoiser(self, variables: PyTree) -> Denoiser:
        """The closure D(x_t, t) = (x_t - c eps_hat) / b, unclipped."""

        def denoise(x: Image, t: Array) -> Image:
            times = jnp.broadcast_to(t, x.shape[:1])
            return denoised_of(self.process, self.predict(variables, x, times), x, times)

        return denoise

    def endpoint(self, keys: Keys) -> Image:
        """x_T ~ N(0, I), one for each key."""
        return normal_endpoint(keys, (self.image_size, self.image_size, self.channels))

    def generate(
        self, variables: PyTree, xT: Image, sampler: Stepper, nodes: Array, noise: Noise | None = None
    ) -> Image:
        """x_T -> x_0. Where that is an image D and x_0 are clipped to [-1, 1], as in decoding."""
        denoiser = self.denoiser(variables)
        bounded = (lambda x: jnp.clip(x, -1, 1)) if self.makes_images else (lambda x: x)
        problem = Problem(self.process, lambda x, t: bounded(denoiser(x, t)), xT)
        return bounded(sample(sampler, problem, xT, nodes, noise))


def names() -> list[str]:
    """The methods that a config may name: the files that end in `Method = ...`."""
    folder = pathlib.Path(__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "base", "ssl"))


def build(config: Any) -> Any:
    """The method of a config's `method` section: its `name`, the other entries are the constructor's arguments.

    Raises UserError where the name or a field is unknown, or a field is missing.
    """
    fields = dict(config)
    name = fields.pop("name", None)
    if name not in names():
        raise unknown("method", name, names(), "config.method.name")
    return construct(importlib.import_module(f"diffrep_jax.methods.{name}").Method, fields, f"config.method of {name}")


def construct(cls: type, fields: Mapping[str, Any], place: str) -> Any:
    """The dataclass with these fields; raises UserError that names `place` where one is unknown or missing."""
    known = {f.name for f in dataclasses.fields(cls)}
    for field in fields:
        if field not in known:
            raise unknown("field", field, known, place)
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in fields and f.default is dataclasses.MISSING]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}; add it to the config.")
    return cls(**fields)


def split_keys(keys: Keys, number: int) -> list[Keys]:
    """`number` independent sets of keys from one key an example: each [b]."""
    split: Callable[[Array], Array] = lambda key: jax.random.split(key, number)  # noqa: E731
    return list(jnp.moveaxis(jax.vmap(split)(keys), 1, 0))


def check_dtype(dtype: str) -> None:
    """Raise UserError unless networks can compute in it."""
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"), "config.method.dtype")


def check_halvings(image_size: int, halvings: int, who: str) -> None:
    """Raise UserError unless images can be halved as often as `who` asks."""
    if image_size % 2**halvings:
        raise UserError(
            f"image_size {image_size} cannot be halved {halvings} times, as {who} ask; "
            "choose fewer levels or another size."
        )


def freeze(value: Any) -> Any:
    """A config section as a hashable constant: mappings to FrozenDict, lists to tuples.

    Methods are compared by their fields, so that what is compiled for one serves all equal ones.
    """
    if hasattr(value, "items"):  # a dict or a ConfigDict
        return FrozenDict({name: freeze(item) for name, item in value.items()})
    return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value
