"""A run's weights: the averaged or the live ones of its newest checkpoint, laid out on a mesh."""

import hashlib
import os

import jax
import numpy as np
from jax.sharding import Mesh

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import Method
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
    """{"params", "batch_stats"} of a run's newest checkpoint, averaged ("ema") or "live"; no optimizer is read."""
    if weights not in WEIGHTS:
        raise unknown("weights", weights, WEIGHTS)
    if not checkpoint.exist(folder):
        raise UserError(f"No {layout.CHECKPOINTS} folder in {folder}; train first (--task=train).")
    variables = placed(parameters.shapes(method), mesh)
    with checkpoint.opened(folder) as checkpoints:
        if weights == "live":
            return checkpoints.restore(variables)
        ema = variables | {"params": parameters.averaged(method, variables["params"])}
        if jax.tree.structure(ema) == jax.tree.structure(variables):
            return checkpoints.restore({"ema": ema})["ema"]
        parts = checkpoints.restore({"ema": ema, "params": variables["params"]})  # not all have an average
        return parts["ema"] | {"params": parameters.overlay(parts["params"], parts["ema"]["params"])}
