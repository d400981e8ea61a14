"""`config.train.init_from`: a run that starts with the networks of another, as PDAE and DiTi do with their DDPM's."""

import logging
import os
from collections.abc import Iterable

import jax
from jax.sharding import Mesh

from diffrep_jax.errors import UserError
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import Method, build
from diffrep_jax.runs import checkpoint
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import as_path
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


def networks_of(run: str, method: Method, mesh: Mesh) -> PyTree:
    """The averaged networks of `run` that this method has too, {name: params}; {} where `run` is "".

    Raises UserError where that would leave a frozen network as it was drawn, `run` is no run, has no network of the
    same name, or one of another shape.
    """
    check(run, method)
    if not run:
        return {}
    other = build(run_config.load(run).method)
    theirs = parameters.used(other, load_variables(run, other, mesh)["params"])
    ours = parameters.shapes(method)["params"]
    shared = {name: value for name, value in theirs.items() if name in ours}
    log.info("Starting with %s of %s.", ", ".join(shared), run)
    return shared


def check(run: str, method: Method) -> None:
    """Raise UserError where `networks_of` would, but for damaged weights: none are read."""
    params = parameters.shapes(method)["params"]
    if not run:
        return _refuse_frozen(method, params)
    if not run_config.is_run(run) or not checkpoint.exist(run):
        raise UserError(
            f"train.init_from={as_path(run)} is no run with a checkpoint; name the folder of a trained one."
        )
    other = build(run_config.load(run).method)
    theirs = parameters.used(other, parameters.shapes(other)["params"])
    shared = {name: value for name, value in theirs.items() if name in params}
    if not shared:
        raise UserError(
            f"train.init_from={run} has {', '.join(theirs)}, this model {', '.join(params)}: no network is the same; "
            "name a run of the base."
        )
    _compare(run, shared, {name: params[name] for name in shared})
    _compare_settings(run, other, method, shared)


def check_same_beginning(run: str, workdir: str | os.PathLike[str]) -> None:
    """Raise UserError where a run that has a checkpoint is asked to begin from another one than it did."""
    began = run_config.load(workdir).train.init_from
    if run and run != began:
        raise UserError(
            f"train.init_from={run}: {workdir} has already begun, from '{began}'; leave it out to go on, or use "
            "another --workdir."
        )


def _refuse_frozen(method: Method, params: PyTree) -> None:
    kept = parameters.trained(method, params)
    if left := [name for name in params if name not in kept]:
        raise UserError(
            f"This method keeps {', '.join(left)} frozen, so it has to come from a run of the base; "
            "add --config.train.init_from=RUN."
        )


def _compare(run: str, theirs: PyTree, ours: PyTree) -> None:
    shapes = [{jax.tree_util.keystr(p): x.shape for p, x in jax.tree.leaves_with_path(tree)} for tree in (theirs, ours)]
    for path in sorted(shapes[0].keys() | shapes[1].keys()):
        there, here = (shape[path] if path in shape else "absent" for shape in shapes)
        if there != here:
            raise UserError(
                f"train.init_from={run} has another network: {path} is {there} there and {here} here; "
                "give this config the run's method.unet."
            )


def _compare_settings(run: str, theirs: Method, ours: Method, names: Iterable[str]) -> None:
    """Refuse networks of equal shapes with other settings: the weights would mean something else."""
    for name in names:
        there, here = theirs.beyond_shapes(name), ours.beyond_shapes(name)
        for field in there.keys() & here.keys():
            if there[field] != here[field]:
                raise UserError(
                    f"train.init_from={run} has another network: method.{name}.{field} is {there[field]} there and "
                    f"{here[field]} here; give this config the run's method.{name}."
                )
