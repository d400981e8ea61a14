"""The optimizer of a config's `optim` section, one optax transformation for the labels of `Method.param_labels`."""

import functools
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import Method
from diffrep_jax.train.joined import LEAF_BY_LEAF, Elementwise
from diffrep_jax.train.settings import Optimizer, check_optim
from diffrep_jax.types import Config, PyTree

OPTIMIZERS = {
    "radam": optax.radam,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": functools.partial(optax.sgd, momentum=0.9),
}
SCHEDULE = ("warmup_steps", "decay_steps", "decay_to")  # optional fields of a section


def build(config: Config, method: Method, elementwise: Elementwise = LEAF_BY_LEAF) -> optax.GradientTransformation:
    """`config.name` at the rate `config.lr` for parameters labelled "train"; "frozen" ones stay.

    The rate is constant, unless `config.warmup_steps` lead up to it, or it falls along half a cosine, over
    `config.decay_steps` steps, to the part `config.decay_to` of it. sgd takes a `weight_decay` as part of the gradient.
    Where `config.clip_norm` is above 0, gradients of a larger norm, over all trained parameters, are scaled to it.
    For another label there is the section `config.<label>`, with a name and a rate of its own.
    optax.radam is PyTorch's RAdam, which DBAE uses, to 1e-9. adamw shrinks all parameters by lr weight_decay a step.
    elementwise: how the work is done, which changes neither the numbers nor the layout of the state.
    """
    check_optim(config)
    sections = {"train": config} | {name: section for name, section in config.items() if hasattr(section, "items")}
    transforms: dict[Hashable, optax.GradientTransformation] = {"frozen": optax.set_to_zero()}
    for label, section in sections.items():
        transforms[label] = _clipped(section, elementwise.transformation(_transform(section)))

    def labels(params: PyTree) -> PyTree:
        labels = method.param_labels(params)
        for label in set(jax.tree.leaves(labels)) - transforms.keys():
            raise UserError(f"config.optim lacks the section '{label}', with name and lr; add it to the config.")
        return labels

    return optax.multi_transform(transforms, labels)


def _transform(section: Config) -> optax.GradientTransformation:
    own = {"weight_decay": section.weight_decay} if section.name == "adamw" else {}
    transform = OPTIMIZERS[section.name](_rate(section), **own)
    if section.name == "sgd" and "weight_decay" in section:
        return optax.chain(optax.add_decayed_weights(section.weight_decay), transform)
    return transform


def _rate(section: Config) -> float | optax.Schedule:
    """The learning rate, or where it changes its schedule by the number of updates so far."""
    values = (section[field] if field in section else getattr(Optimizer, field) for field in SCHEDULE)
    warmup, decay, end = values
    if not (warmup or decay):
        return section.lr

    def rate(step: Any) -> Any:
        part = jnp.minimum((step + 1) / max(warmup, 1), 1)
        fallen = (1 - jnp.cos(jnp.pi * jnp.minimum(step / max(decay, 1), 1))) / 2 if decay else 0.0
        return section.lr * part * (1 - (1 - end) * fallen)

    return rate


def _clipped(section: Config, transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """With the gradients' norm limited, where the section says to."""
    clip_norm = section.clip_norm if "clip_norm" in section else 0.0
    return optax.chain(optax.clip_by_global_norm(clip_norm), transform) if clip_norm else transform
