"""Write a run's averaged weights as files that last: safetensors in our names, and the official PyTorch checkpoint.

To `<workdir>/export/`: `ema_<decay>_<step>.safetensors` with `config.json` next to it, which `--task=import` reads, and
`ema_<decay>_<step>.pt` in the official names and layout, which the official code loads. Where that layout has weights
that are not averaged, too, those in the file are the averaged ones as well. A DDPM and a latent prior go into PDAE's
layout, or into that of DiffAE's `last.ckpt`.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from diffrep_jax import port
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods import parameters
from diffrep_jax.port import diffae, files, own, parts
from diffrep_jax.runs import checkpoint
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import CONFIG, Run, as_path
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

LAYOUTS = ("", "diffae")


@dataclasses.dataclass(frozen=True)
class Export:
    """Without PyTorch the .pt file is left out, and the log says so.

    Attributes:
      layout: "diffae" for that of DiffAE, which a DDPM and a latent prior can have too; "": that of the method's paper.
      autoencoder: the run of the DiffAE that goes with a prior into such a file, as in the official one; "": none.
    """

    needs_run: ClassVar[bool] = True

    layout: str = ""
    autoencoder: str = ""

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise unknown("layout", self.layout, LAYOUTS, "config.tasks.export.layout")
        if self.autoencoder and not self.layout:
            raise UserError("config.tasks.export.autoencoder goes with a prior into DiffAE's file: add layout=diffae.")

    def run(self, model: Model, run: Run) -> dict[str, float]:
        folder, config = pathlib.Path(run.task_folder("export")), run.config
        with checkpoint.opened(run.folder) as checkpoints:
            step = checkpoints.existing_step()
        stem = f"ema_{config.optim.ema_decay}_{step:07d}"
        files.write_safetensors(folder / f"{stem}.safetensors", own.flatten(model.variables))
        run_config.save(config, folder)
        written = [f"{stem}.safetensors", CONFIG]
        try:
            used = model.variables | {"params": parameters.used(model.method, model.variables["params"])}
            files.write_torch(folder / f"{stem}.pt", self._official(config.method, used, step))
            written.append(f"{stem}.pt")
        except UserError as error:
            log.warning("No official checkpoint was written. %s", error)
        log.info("Step %d is in %s: %s.", step, folder, ", ".join(written))
        run.write_numbers("export", {"step": step, "files": written})
        return {"step": step}

    def _official(self, method: Mapping[str, Any], variables: PyTree, step: int) -> dict[str, Any]:
        """What the official code saves, in its names, those that are of no use here included."""
        if method["name"] not in port.names():
            raise UserError(f"There is no official code for {method['name']}.")
        tensors = _tensors(method, variables)
        if not self.layout:
            return parts.nest(tensors, port.source(method["name"]).PARTS, step)
        held = {method["name"]: tensors}
        if self.autoencoder:
            folder = as_path(self.autoencoder)
            held["diffae"] = _tensors(run_config.load(folder).method, open_run(folder).variables)
        return diffae.last_ckpt(method, held, variables, step)


def _tensors(method: Mapping[str, Any], variables: PyTree) -> dict[str, np.ndarray]:
    source = port.source(method["name"])
    tensors = source.table(method).to_official(variables)
    return tensors | source.unused(method, tensors)


Task = Export
