"""A run's weights, laid out on a mesh: the averaged or the live ones of its newest checkpoint, or an export's."""

import hashlib
import os
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import Method
from diffrep_jax.port import files, own
from diffrep_jax.runs import checkpoint, layout
from diffrep_jax.sharding import placed
from diffrep_jax.types import PyTree

WEIGHTS = ("ema", "live")
SAME = 1e-4  # codes of one network on two machines differ less, relative to their norm


def same_network(theirs: np.ndarray, ours: np.ndarray) -> bool:
    """Whether two fingerprints, the codes of one picture, are of one network."""
    return bool(theirs.shape == ours.shape and np.linalg.norm(theirs - ours) <= SAME * np.linalg.norm(ours))


def digest(variables: PyTree) -> str:
    """What tells these weights from others, those of a few steps later too, on any machine: 16 hex digits."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).data)
    return sha.hexdigest()[:16]


def load_variables(folder: str | os.PathLike[str], method: Method, mesh: Mesh, weights: str = "ema") -> PyTree:
    """{"params", "batch_stats"} of a run's newest checkpoint, averaged ("ema") or "live"; no optimizer is read.

    A folder without checkpoints may be what `--task=export` wrote, which has the averaged ones.
    """
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    variables = placed(parameters.shapes(method), mesh)
    if not checkpoint.exist(folder):
        return _exported(exported_file(folder), variables, weights)
    with checkpoint.opened(folder) as checkpoints:
        if weights == "live":
            return checkpoints.restore(variables)
        ema = variables | {"params": parameters.averaged(method, variables["params"])}
        if jax.tree.structure(ema) == jax.tree.structure(variables):
            return checkpoints.restore({"ema": ema})["ema"]
        parts = checkpoints.restore({"ema": ema, "params": variables["params"]})  # not all have an average
        return parts["ema"] | {"params": parameters.overlay(parts["params"], parts["ema"]["params"])}


def exported_file(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The one safetensors file of a folder; UserError where there is none, or more than one."""
    there = sorted(layout.as_path(folder).glob("*.safetensors"))
    if not there:
        raise UserError(f"No {layout.CHECKPOINTS} folder in {folder}; train first (--task=train).")
    if len(there) > 1:
        names = ", ".join(path.name for path in there)
        raise UserError(f"{folder} has {names}: keep the one that is meant, next to its {layout.CONFIG}.")
    return pathlib.Path(there[0])


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is what `--task=export` wrote, weights without checkpoints."""
    return not checkpoint.exist(folder) and any(layout.as_path(folder).glob("*.safetensors"))


def refuse_export(folder: str | os.PathLike[str]) -> None:
    """Raise UserError where a folder is what `--task=export` wrote: it cannot be trained on, only imported."""
    if is_export(folder):
        raise UserError(
            f"{folder} holds exported weights, no optimizer: make a run of them with --task=import "
            f"--checkpoint={exported_file(folder)} and another --workdir, and train that."
        )


def _exported(path: pathlib.Path, variables: PyTree, weights: str) -> PyTree:
    if weights == "live":
        raise UserError(f"{path} has the averaged weights alone; leave weights='live' out.")
    values = own.unflatten(files.read(path), variables, str(path))
    return jax.tree.map(lambda value, leaf: jax.device_put(value, leaf.sharding), values, variables)
