"""A run's weights: the averaged or the live ones of its newest checkpoint, laid out on a mesh."""

import os

import jax
from jax.sharding import Mesh

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import Method
from diffrep_jax.runs import checkpoint, layout
from diffrep_jax.sharding import placed
from diffrep_jax.types import PyTree

WEIGHTS = ("ema", "live")


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
