"""Self-supervised losses on an encoder, added to a method's own: SimCLR and SimSiam, as DiTi's baselines have them.

Two views of each of n images are encoded to z_1 and z_2, [n, d]. A projector f, and for SimSiam a predictor h, stand
between the codes and the loss; both are of no use afterwards. With s(a, b) = a.b / (|a| |b|):

SimCLR (Chen et al., ICML 2020, 2002.05709): each of the 2n projections p = f(z) has to find that of its other view,
its twin, among all others,

    loss = mean_i -log( exp(s(p_i, p_twin(i)) / temperature) / sum_{j != i} exp(s(p_i, p_j) / temperature) )    (eq. 1)

SimSiam (Chen and He, CVPR 2021, 2011.10566): each view predicts the projection of the other, which gets no gradient,

    loss = -( s(h(f(z_1)), sg f(z_2)) + s(h(f(z_2)), sg f(z_1)) ) / 2                                        (eq. 1-4)

The method's loss counts `main_weight` times, and what is added to it from the update `start_step` on is

    weight loss + encoder_decay / 2 |encoder's parameters|^2

the second term being what optimizers call weight decay when it is part of the gradient, as in PyTorch's Adam. DiTi's
official baselines train the encoder by this alone, with a `main_weight` of 0.

The negatives and batch norm are those of the whole batch, whatever devices it is split over: nothing here is done in
micro-batches, and the numbers of many devices are those of one.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from diffrep_jax.errors import unknown
from diffrep_jax.fields import Natural, NotNegative, Positive, Within, construct
from diffrep_jax.methods.base import Views
from diffrep_jax.models.apply import apply
from diffrep_jax.models.heads import Head
from diffrep_jax.models.initialization import initialize
from diffrep_jax.types import Array, Code, PyTree, Scalar

LABEL = "ssl"  # of the heads' parameters: `config.optim.ssl` trains them
PLACE = "config.method.ssl"


HeadWidth = Annotated[int, Within(1, 65_536)]


@dataclasses.dataclass(frozen=True)
class SelfSupervised:
    """What both losses have; the fields are the config's `method.ssl` section.

    Attributes:
      weight: of the loss; 0 leaves all of it out. main_weight: of the method's own; 0 trains the encoder by this alone.
      start_step: the number of updates without it.
      batch_size: the number of images; there are twice as many views.
      augment: False makes both views the image as it is. jitter: the strength of the change of colours, in [0, 1].
      encoder_decay: the weight decay of the encoder, once the loss has begun.
      hidden: the width of the projector's hidden layers.
    """

    weight: NotNegative
    main_weight: NotNegative
    start_step: Natural
    batch_size: Annotated[int, Within(2, 2**20)]
    augment: bool
    jitter: Annotated[float, Within(0, 1)]
    encoder_decay: NotNegative
    hidden: HeadWidth

    @property
    def views(self) -> Views:
        return Views(self.batch_size, self.augment, self.jitter, self.start_step, f"{PLACE}.batch_size")

    @property
    def heads(self) -> dict[str, tuple[Head, int | None]]:
        """{name: (network, the size of what it is given; None for the code's)}."""
        raise NotImplementedError

    def compare(self, heads: PyTree, z1: Code, z2: Code) -> Scalar:
        """The loss of two batches of codes [n, d], a view of the same image in each row."""
        raise NotImplementedError

    def init(self, rng: Array, latent_dim: int) -> PyTree:
        """The heads' parameters."""
        keys = jax.random.split(rng, len(self.heads))
        return {
            name: initialize(head, key, jnp.zeros((2, size or latent_dim)))["params"]
            for key, (name, (head, size)) in zip(keys, self.heads.items(), strict=True)
        }

    def loss(self, heads: PyTree, encoder: PyTree, z1: Code, z2: Code) -> tuple[Scalar, dict[str, Scalar]]:
        """(what is added to the method's loss, {"loss_ssl": the loss without weight and decay})."""
        loss = self.compare(heads, z1, z2)
        squares = sum((leaf**2).sum() for leaf in jax.tree.leaves(encoder))
        return self.weight * loss + self.encoder_decay / 2 * squares, {"loss_ssl": loss}

    def _apply(self, name: str, heads: PyTree, x: Array) -> Array:
        return apply(self.heads[name][0], heads[name], x)


@dataclasses.dataclass(frozen=True)
class SimCLR(SelfSupervised):
    """`temperature`: of the softmax; `out`: the size of the projections. The projector has one hidden layer."""

    temperature: Positive
    out: HeadWidth

    @property
    def heads(self) -> dict[str, tuple[Head, int | None]]:
        return {"projector": (Head((self.hidden, self.out)), None)}

    def compare(self, heads: PyTree, z1: Code, z2: Code) -> Scalar:
        p1, p2 = (self._apply("projector", heads, z) for z in (z1, z2))
        return nt_xent(p1, p2, self.temperature)


@dataclasses.dataclass(frozen=True)
class SimSiam(SelfSupervised):
    """`bottleneck`: the width of the predictor's hidden layer. The projector has three layers with batch norm."""

    bottleneck: HeadWidth

    @property
    def heads(self) -> dict[str, tuple[Head, int | None]]:
        projector = Head((self.hidden,) * 3, norm=True, norm_out=True)
        return {
            "projector": (projector, None),
            "predictor": (Head((self.bottleneck, self.hidden), norm=True), self.hidden),
        }

    def compare(self, heads: PyTree, z1: Code, z2: Code) -> Scalar:
        p1, p2 = (self._apply("projector", heads, z) for z in (z1, z2))
        h1, h2 = (self._apply("predictor", heads, p) for p in (p1, p2))
        return (negative_cosine(h1, p2) + negative_cosine(h2, p1)) / 2


KINDS = {"simclr": SimCLR, "simsiam": SimSiam}


def self_supervised(section: Mapping[str, Any]) -> SelfSupervised | None:
    """The loss of a config's `method.ssl` section: its `kind`, the other entries are the constructor's arguments.

    None where the section is empty or the weight 0. Raises UserError for what does not fit.
    """
    fields = dict(section)
    if not fields:
        return None
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS, f"{PLACE}.kind")
    loss = construct(KINDS[kind], fields, PLACE)
    return loss if loss.weight else None


def nt_xent(p1: Array, p2: Array, temperature: float) -> Scalar:
    """SimCLR's loss of the projections [n, k] of two views, row by row of the same image."""
    p = _unit(jnp.concatenate([p1, p2]))
    twin = jnp.roll(p, len(p1), axis=0)
    others = ~jnp.eye(len(p), dtype=bool)
    denominator = jax.nn.logsumexp(p @ p.T / temperature, axis=1, where=others)
    return (denominator - (p * twin).sum(1) / temperature).mean()


def negative_cosine(prediction: Array, target: Array) -> Scalar:
    """SimSiam's D: the mean of -s over the rows, in [-1, 1]; the target gets no gradient."""
    return -(_unit(prediction) * _unit(jax.lax.stop_gradient(target))).sum(1).mean()


def _unit(x: Array) -> Array:
    """Rows of length 1; a row of zeros stays, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum((x**2).sum(1, keepdims=True), 1e-24))
