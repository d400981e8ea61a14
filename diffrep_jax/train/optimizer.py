"""The optimizer of a config's `optim` section, one optax transformation for the labels of `Method.param_labels`."""

import functools
from collections.abc import Hashable

import jax
import optax

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.methods.base import Method
from diffrep_jax.train.joined import LEAF_BY_LEAF, Elementwise
from diffrep_jax.types import Config, PyTree

OPTIMIZERS = {
    "radam": optax.radam,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": functools.partial(optax.sgd, momentum=0.9),
}
OWN_FIELDS = {"adamw": ("weight_decay",)}  # of a config's section, besides those that all have


def build(config: Config, method: Method, elementwise: Elementwise = LEAF_BY_LEAF) -> optax.GradientTransformation:
    """`config.name` at the constant rate `config.lr` for parameters labelled "train"; "frozen" ones stay.

    Where `config.clip_norm` is above 0, gradients of a larger norm, over all trained parameters, are scaled to it.
    For another label there is the section `config.<label>`, with a name and a rate of its own.
    optax.radam is PyTorch's RAdam, which DBAE uses, to 1e-9. adamw shrinks all parameters by lr weight_decay a step.
    elementwise: how the work is done, which changes neither the numbers nor the layout of the state.
    """
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"config.optim.ema_decay {config.ema_decay} is outside [0, 1).")
    sections = {"train": config} | {name: section for name, section in config.items() if hasattr(section, "items")}
    transforms: dict[Hashable, optax.GradientTransformation] = {"frozen": optax.set_to_zero()}
    for label, section in sections.items():
        place = "config.optim" if section is config else f"config.optim.{label}"
        transforms[label] = _clipped(section, place, elementwise.transformation(_transform(section, place)))

    def labels(params: PyTree) -> PyTree:
        labels = method.param_labels(params)
        for label in set(jax.tree.leaves(labels)) - transforms.keys():
            raise UserError(f"config.optim lacks the section '{label}', with name and lr; add it to the config.")
        return labels

    return optax.multi_transform(transforms, labels)


def _transform(section: Config, place: str) -> optax.GradientTransformation:
    if section.name not in OPTIMIZERS:
        raise unknown("optimizer", section.name, OPTIMIZERS, f"{place}.name")
    if not section.lr > 0:
        raise UserError(f"{place}.lr {section.lr} must be above 0.")
    return OPTIMIZERS[section.name](section.lr, **_own_settings(section, place))


def _clipped(section: Config, place: str, transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """With the gradients' norm limited, where the section says to."""
    clip_norm = section.clip_norm if "clip_norm" in section else 0.0
    if not clip_norm >= 0:
        raise UserError(f"{place}.clip_norm {clip_norm} is below 0; 0 clips nothing.")
    return optax.chain(optax.clip_by_global_norm(clip_norm), transform) if clip_norm else transform


def _own_settings(section: Config, place: str) -> dict[str, float]:
    """The arguments that this optimizer alone has."""
    settings = {}
    for field in OWN_FIELDS[section.name] if section.name in OWN_FIELDS else ():
        if field not in section or not section[field] >= 0:
            raise UserError(f"{place}.name={section.name} needs {place}.{field}, a number from 0 on.")
        settings[field] = section[field]
    return settings
