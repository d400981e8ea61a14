"""The optimizer of a config's `optim` section, one optax transformation for the labels of `Method.param_labels`."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.types import PyTree

SMALL = 2**17  # elements
OPTIMIZERS = {
    "radam": optax.radam,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": functools.partial(optax.sgd, momentum=0.9),
}
OWN_FIELDS = {"adamw": ("weight_decay",)}  # of a config's section, beside those that all have


def build(config: Any, method: Any) -> optax.GradientTransformation:
    """`config.name` at the constant rate `config.lr` for parameters labelled "train"; "frozen" ones stay.

    Where `config.clip_norm` is above 0, gradients of a larger norm, over all trained parameters, are scaled to it.
    For another label there is the section `config.<label>`, with a name and a rate of its own.
    optax.radam is PyTorch's RAdam, which DBAE uses, to 1e-9. adamw shrinks all parameters by lr weight_decay a step.
    """
    if not 0 <= config.ema_decay < 1:
        raise UserError(f"config.optim.ema_decay {config.ema_decay} is outside [0, 1).")
    sections = {name: section for name, section in config.items() if hasattr(section, "items")}
    transforms = {"train": _transform(config, "config.optim"), "frozen": optax.set_to_zero()}
    transforms |= {label: _transform(section, f"config.optim.{label}") for label, section in sections.items()}

    def labels(params: PyTree) -> PyTree:
        labels = method.param_labels(params)
        for label in set(jax.tree.leaves(labels)) - transforms.keys():
            raise UserError(f"config.optim lacks the section '{label}', with name and lr; add it to the config.")
        return labels

    return optax.multi_transform(transforms, labels)


def _transform(section: Any, place: str) -> optax.GradientTransformation:
    if section.name not in OPTIMIZERS:
        raise unknown("optimizer", section.name, OPTIMIZERS, f"{place}.name")
    if not section.lr > 0:
        raise UserError(f"{place}.lr {section.lr} must be above 0.")
    transform = _on_joined(OPTIMIZERS[section.name](section.lr, **_own_settings(section, place)))
    clip_norm = section.clip_norm if "clip_norm" in section else 0.0
    if not clip_norm >= 0:
        raise UserError(f"{place}.clip_norm {clip_norm} is below 0; 0 clips nothing.")
    return optax.chain(optax.clip_by_global_norm(clip_norm), transform) if clip_norm else transform


def _own_settings(section: Any, place: str) -> dict[str, float]:
    """The arguments that this optimizer alone has."""
    settings = {}
    for field in OWN_FIELDS[section.name] if section.name in OWN_FIELDS else ():
        if field not in section or not section[field] >= 0:
            raise UserError(f"{place}.name={section.name} needs {place}.{field}, a number from 0 on.")
        settings[field] = section[field]
    return settings


def join_small(tree: PyTree) -> dict[str, Any]:
    """{"large": the large leaves, "small": all others as one vector}: one kernel where there were hundreds.

    Most leaves of a network are biases and norms; elementwise work on each costs more to compile and to load from the
    compile cache than to run.
    """
    leaves = jax.tree.leaves(tree)
    small = [leaf.ravel() for leaf in leaves if leaf.size < SMALL]
    return {
        "large": [leaf for leaf in leaves if leaf.size >= SMALL],
        "small": jnp.concatenate(small) if small else None,
    }


def map_joined(function: Callable[..., Any], *trees: PyTree) -> PyTree:
    """`jax.tree.map` of an elementwise function, with the small leaves joined."""
    return _split_again(jax.tree.map(function, *map(join_small, trees)), trees[0])


def _split_again(joined: dict[str, Any], like: PyTree) -> PyTree:
    """Undo `join_small`; `like` has the wanted structure and shapes."""
    leaves, structure = jax.tree.flatten(like)
    large, offset, out = iter(joined["large"]), 0, []
    for leaf in leaves:
        if leaf.size >= SMALL:
            out.append(next(large))
        else:
            out.append(joined["small"][offset : offset + leaf.size].reshape(leaf.shape))
            offset += leaf.size
    return jax.tree.unflatten(structure, out)


def _on_joined(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """An elementwise transformation, run on the joined tree: the same numbers."""

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        joined, state = inner.update(join_small(updates), state, None if params is None else join_small(params))
        return _split_again(joined, updates), state

    return optax.GradientTransformation(lambda params: inner.init(join_small(params)), update)
