"""Open a run: its method, its weights from the newest checkpoint, its recipe, as a `Model`."""

import os

import jax
from ml_collections import ConfigDict

from diffrep_jax.errors import UserError
from diffrep_jax.fields import construct, shown
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import build
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs import hub
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.sharding import make_mesh
from diffrep_jax.types import Config


def open_run(folder: str | os.PathLike[str], weights: str = "ema", config: Config | None = None) -> Model:
    """The model of a run's folder, with its averaged weights or the "live" ones, on this machine's devices.

    folder: a run's, one that `--task=export` has written, or an address on the Hub, hf://owner/name[@revision].
    config: instead of the run's own `config.json`, for values that were changed. Raises UserError where the folder
    holds no run, or no checkpoint that fits its config.
    """
    folder = hub.fetch(os.fspath(folder)) if hub.is_address(folder) else folder
    config = run_config.load(folder) if config is None else config
    if not isinstance(config, ConfigDict):
        raise UserError(f"config is {shown(config)}, no config; change what runs.config.load({str(folder)!r}) answers.")
    method = build(config.method)
    mesh = make_mesh(devices=jax.local_devices())
    return Model(method, load_variables(folder, method, mesh, weights), mesh, recipe(config))


def recipe(config: Config) -> Sampling:
    """The config's section `sampling`."""
    return construct(Sampling, config.sampling, "config.sampling")
