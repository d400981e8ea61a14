"""What tasks may ask of a method, and how a method is known: by the file name, `methods/<name>.py`'s `Method`.

`variables` is {"params": ..., "batch_stats": ...}; everything here is pure. Randomness comes as one key an example, so
that a result depends neither on the batch around it nor on how the batch is split over micro-batches or devices.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from diffrep_jax import discovery
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import construct
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.processes.noise_prediction import denoised_of, normal_endpoint
from diffrep_jax.samplers.drift import Denoiser, Problem
from diffrep_jax.samplers.driver import Noise, Stepper, invert, sample
from diffrep_jax.types import Array, Code, Image, Keys, Process, PyTree, Scalar, Time

PACKAGE = "diffrep_jax.methods"


@dataclasses.dataclass(frozen=True)
class Views:
    """A second batch for training, of its own size and in its own order: two views of each image.

    Attributes:
      batch_size: the number of images; place: the config's field that says it.
      augment, jitter: as in `data.view_batches`.
      start_step: the number of updates before the first that has them.
    """

    batch_size: int
    augment: bool
    jitter: float
    start_step: int
    place: str


class Mixture(NamedTuple):
    """Two codes an image [b, d], and the share [b] of the second one in what they do to the denoiser."""

    first: Any  # arrays, NumPy's outside of what is compiled
    second: Any
    share: Any


class Method(Protocol):
    """A frozen dataclass whose fields are the config's `method` section.

    `undetermined` names the fields that change results but that no checkpoint says, with the values they may have;
    `candidate_errors` is lowest for the right one. `changeable` are the fields, dots for those of sections, that alter
    neither a shape nor what was learned, so that a run may go on with other values.

    `views` is None, but for methods with a second loss, on views; these have `view_loss` too.
    """

    undetermined: ClassVar[Mapping[str, tuple[Any, ...]]]
    changeable: ClassVar[tuple[str, ...]]

    @property
    def process(self) -> Process: ...

    @property
    def image_size(self) -> int: ...

    @property
    def channels(self) -> int: ...

    @property
    def dtype(self) -> str: ...

    @property
    def views(self) -> Views | None: ...

    def init(self, rng: Array, batch: Mapping[str, Any]) -> PyTree:
        """The variables; only the shapes of `batch` matter."""
        ...

    def with_statistics(self, variables: PyTree, statistics: Mapping[str, np.ndarray]) -> PyTree:
        """The variables with what a data set says of itself as a whole (`ImageDataset.statistics`) in its buffers."""
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

    def candidate_errors(self, variables: PyTree, x0: Image, keys: Keys) -> dict[str, Array]:
        """{field of `undetermined`: error of each image under each of the field's values, [b, values]}."""
        ...

    def beyond_shapes(self, network: str) -> Mapping[str, Any]:
        """The settings of a network, by its name in `params`, that no shape of its parameters says."""
        ...

    def param_labels(self, params: PyTree) -> PyTree:
        """A label a parameter, for `params` or any part of them: "train", "frozen", or one of the method's own.

        Parameters with such a label are trained as `config.optim.<label>` says, and not averaged: networks that
        serve a loss alone.
        """
        ...


class Base:
    """The answers that most methods give."""

    undetermined: ClassVar[Mapping[str, tuple[Any, ...]]] = FrozenDict()
    changeable: ClassVar[tuple[str, ...]] = ("dtype", "remat", "unet.dropout")

    @property
    def views(self) -> Views | None:
        return None

    def with_statistics(self, variables: PyTree, statistics: Mapping[str, np.ndarray]) -> PyTree:
        return variables

    def view_loss(self, variables: PyTree, views: dict[str, Array]) -> tuple[Scalar, dict[str, Scalar]]:
        raise NotImplementedError(f"{type(self).__name__} has no loss on views")

    def candidate_errors(self, variables: PyTree, x0: Image, keys: Keys) -> dict[str, Array]:
        return {}

    def beyond_shapes(self, network: str) -> Mapping[str, Any]:
        settings = getattr(self, network, {})
        return {name: settings[name] for name in ("heads", "head_dim") if name in settings}

    def param_labels(self, params: PyTree) -> PyTree:
        return jax.tree.map(lambda _: "train", params)


class AutoEncoder(Base):
    """A method with a code: image -> z -> x_T -> image. Subclasses say the first three, decoding follows.

    x_T and z are independent: z may be moved while x_T stays. An attribute's direction is that of a head on codes
    normalised by their mean and deviation, or where `edits_normalised` is False on codes as they are.
    """

    edits_normalised: ClassVar[bool] = True
    mixes: ClassVar[bool] = False  # whether `denoiser` takes a Mixture: trajectory interpolation

    process: Process
    image_size: int
    channels: int
    latent_dim: int

    @property
    def encodes_noise(self) -> bool:
        """Whether z = mu + sigma noise: a stochastic encoder."""
        return False

    def encode(self, variables: PyTree, x0: Image, noise: Code | None = None) -> Code:
        """x0 -> z [b, d]. `noise` [b, d] is for a stochastic encoder only; None takes its mean."""
        raise NotImplementedError

    def endpoint(self, variables: PyTree, z: Code, keys: Keys) -> Image:
        """z -> x_T, where decoding starts."""
        raise NotImplementedError

    def denoiser(self, variables: PyTree, z: Code | Mixture, xT: Image) -> Denoiser:
        """The closure D(x_t, t), unclipped; a mixture is for methods that mix alone."""
        raise NotImplementedError

    def denoiser_without_code(self, variables: PyTree, xT: Image) -> Denoiser:
        """D where nothing is known of z: given 0, or for a method on a frozen DDPM that DDPM."""
        return self.denoiser(variables, jnp.zeros((len(xT), self.latent_dim)), xT)

    def block_of(self, t: np.ndarray) -> np.ndarray:
        """The block of z that the times [n] belong to, where the code is built of blocks; on the host."""
        return np.zeros(len(t), int)

    def loss_weight(self, t: Any) -> Any:
        """What the loss weighs |D - x_0|^2 with at the times [b]."""
        raise NotImplementedError

    def denoiser_of_sample(self, variables: PyTree, z: Code, xT: Image) -> Denoiser:
        """D where z is a sample of a prior and no image's code; the same D for most methods."""
        return self.denoiser(variables, z, xT)

    @property
    def block_ends(self) -> np.ndarray:
        """The dimension behind each block of z, where the code is built of blocks; here it is one block."""
        return np.array([self.latent_dim])

    def invert(self, variables: PyTree, x0: Image, z: Code, xT: Image, stepper: Stepper, plan: PyTree) -> Image:
        """x_0 -> the state at the plan's last time: the same ODE upward, x_0 counting as the state at its first.

        Less a(t) x_T that is the stochastic code, what decoding starts with besides z and x_T to come back to x_0: for
        the Gaussian family, a = 0, the paper's inferred x_T. The denoiser is clipped, as in decoding. A
        reversible stepper answers its stochastic code as it is.
        """
        return invert(stepper, _clipped(self.denoiser(variables, z, xT), xT), x0, plan)

    def decode(
        self,
        variables: PyTree,
        z: Code | Mixture,
        xT: Image,
        start: Image,
        stepper: Stepper,
        plan: PyTree,
        noise: Noise | None = None,
    ) -> Image:
        """(z, x_T) -> x_0 in [-1, 1], D clipped as in the papers; `start`: x_T, or what `invert` has reached."""
        problem = _clipped(self.denoiser(variables, z, xT), xT)
        return jnp.clip(sample(stepper, problem, start, plan, noise), -1, 1)

    def decode_sample(
        self, variables: PyTree, z: Code, xT: Image, stepper: Stepper, plan: PyTree, noise: Noise | None = None
    ) -> Image:
        """As `decode`, from x_T, where z is a sample of a prior."""
        problem = _clipped(self.denoiser_of_sample(variables, z, xT), xT)
        return jnp.clip(sample(stepper, problem, xT, plan, noise), -1, 1)


def _clipped(denoiser: Denoiser, xT: Image) -> Problem:
    return Problem(lambda x, t: jnp.clip(denoiser(x, t), -1, 1), xT)


class DiscreteTraining(Base):
    """The training of methods on discrete steps: t uniform, one noise an image, the loss that `loss_at` gives there."""

    process: DiscreteVP

    def loss_at(self, variables: PyTree, x0: Image, t: Time, eps: Image, dropout_keys: Keys | None = None) -> Array:
        """The loss of each image [b] for given draws, a mean over pixels; dropout is on where there are keys."""
        raise NotImplementedError

    def loss(
        self, variables: PyTree, batch: dict[str, Array], keys: Keys, train: bool
    ) -> tuple[Scalar, dict[str, Scalar], PyTree]:
        x0 = batch["image"]
        k_t, k_eps, k_dropout = split_keys(keys, 3)
        steps = self.process.steps
        t = jax.vmap(lambda key: jax.random.randint(key, (), 0, steps))(k_t).astype(jnp.float32)
        eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:]))(k_eps)
        loss = self.loss_at(variables, x0, t, eps, k_dropout if train else None).mean()
        return loss, {"loss": loss}, variables["batch_stats"]


class Unconditional(DiscreteTraining):
    """A method without a code: x_T ~ N(0, I) -> x_0, by the noise eps_hat that its network sees in x_t.

    Subclasses say `predict` and `loss_at`; generation follows. What is generated are images in [-1, 1], or where
    `makes_images` is False something else, which has no such range unless `bounded` says so.
    """

    image_size: int
    channels: int
    makes_images: ClassVar[bool] = True

    @property
    def bounded(self) -> bool:
        """Whether D and what is generated are clipped to [-1, 1]."""
        return self.makes_images

    def predict(self, variables: PyTree, x: Image, t: Time, keys: Keys | None = None) -> Image:
        """eps_hat(x_t, t); `keys` turn dropout on."""
        raise NotImplementedError

    def statistics(self, variables: PyTree) -> Mapping[str, Array]:
        """What the variables keep of the data that they were trained on as a whole; nothing of images."""
        return {}

    def knows_its_data(self, variables: PyTree) -> bool:
        """Whether `statistics` are those of the data; an imported prior may have come without them."""
        return True

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
        self, variables: PyTree, xT: Image, stepper: Stepper, plan: PyTree, noise: Noise | None = None
    ) -> Array:
        """x_T -> x_0; where `bounded` says so D and x_0 are clipped to [-1, 1], as in decoding."""
        denoiser = self.denoiser(variables)
        bounded = (lambda x: jnp.clip(x, -1, 1)) if self.bounded else (lambda x: x)
        return bounded(sample(stepper, Problem(lambda x, t: bounded(denoiser(x, t)), xT), xT, plan, noise))


def names() -> tuple[str, ...]:
    """The methods that a config may name: the files of this folder that end in `Method = ...`."""
    return discovery.names(PACKAGE, "Method")


def method_class(name: Any) -> type:
    """`methods/<name>.py`'s `Method`; raises UserError for a name that there is not."""
    if name not in names():
        raise unknown("method", name, names(), "config.method.name")
    return discovery.load(PACKAGE, name, "Method")


def refuse_maker_of_codes(cls: type) -> None:
    """Raise UserError for a method that makes another's codes: it has no images."""
    if not getattr(cls, "makes_images", True):
        raise UserError(
            f"A {cls.__name__} run makes the codes of an auto-encoder and takes no images; give that auto-encoder's "
            "--workdir, and this one as its prior (--task=sample --config.tasks.sample.prior)."
        )


def build(config: Mapping[str, Any]) -> Any:
    """The method of a config's `method` section: its `name`, the other entries are the constructor's arguments.

    Raises UserError where the name or a field is unknown, a field without a default is missing, or a value no value of
    its field.
    """
    fields = dict(config)
    name = fields.pop("name", None)
    return construct(method_class(name), fields, "config.method")


def example_batch(method: Method) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes that `Method.init` needs."""
    shape = (1, method.image_size, method.image_size, method.channels)
    return {"image": jax.ShapeDtypeStruct(shape, jnp.float32)}


def split_keys(keys: Keys, number: int) -> list[Keys]:
    """`number` independent sets of keys from one key an example: each [b]."""
    split: Callable[[Array], Array] = lambda key: jax.random.split(key, number)  # noqa: E731
    return list(jnp.moveaxis(jax.vmap(split)(keys), 1, 0))


def check_dtype(dtype: str, field: str = "dtype") -> None:
    """Raise UserError unless networks can compute in what the field of a method says."""
    if dtype not in ("float32", "bfloat16"):
        raise unknown("dtype", dtype, ("float32", "bfloat16"), f"config.method.{field}")


def not_in_dtype(method: Any) -> str:
    """'; ... in float32': what of a method, or of its section, does not compute in its `dtype`, for people."""
    outer = getattr(method, "outer_dtype", "float32")
    if method.dtype == "float32":
        return "" if outer == "float32" else f"; encoder and generator in {outer}"
    return f"; parameters{', encoder, generator' if outer == 'float32' else ''} and heads in float32"


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
