"""Our own names in a flat file, "params/unet/conv_in/kernel": what `--task=export` writes for any method."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.types import PyTree

_COLLECTIONS = ("params/", "batch_stats/")


def is_own(names: Iterable[str]) -> bool:
    return all(name.startswith(_COLLECTIONS) for name in names)


def flatten(variables: PyTree) -> dict[str, np.ndarray]:
    """{path: array} of all leaves."""
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(variables)}


def narrowed(tensors: Mapping[str, np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    """The parameters in another type of floats; buffers, such as a prior's statistics, stay as they are."""
    return {name: x.astype(dtype) if name.startswith(_COLLECTIONS[0]) else x for name, x in tensors.items()}


def unflatten(tensors: Mapping[str, np.ndarray], template: PyTree, source: str) -> PyTree:
    """The variables; raises UserError, naming `source`, where names or shapes differ from those of `template`."""
    ours = {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(template)}
    for name in sorted(ours.keys() | tensors.keys()):
        there = list(tensors[name].shape) if name in tensors else "absent"
        here = list(ours[name].shape) if name in ours else "absent"
        if there != here:
            raise UserError(
                f"{source} does not fit the model: {name} is {there} there and {here} here. Is the config the file's?"
            )
    return jax.tree.unflatten(
        jax.tree.structure(template), [np.asarray(tensors[name], leaf.dtype) for name, leaf in ours.items()]
    )


def _name(path: tuple) -> str:
    return "/".join(str(key.key) for key in path)
