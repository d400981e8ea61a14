"""Write a run's averaged weights as files that last: safetensors in our names, and the official PyTorch checkpoint.

To `<workdir>/export/`: `ema_<decay>_<step>.safetensors` with `config.json` next to it, which `--task=import` reads, and
`ema_<decay>_<step>.pt` in the official names and layout, which the official code loads. Where that layout has weights
that are not averaged, too, those in the file are the averaged ones as well.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

from diffrep_jax import port
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.methods import parameters
from diffrep_jax.port import files, own, parts
from diffrep_jax.runs import checkpoint, layout
from diffrep_jax.runs import config as run_config
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Export:
    """Needs no settings; without PyTorch the .pt file is left out, and the log says so."""

    needs_run: ClassVar[bool] = True

    def run(self, model: Model, run: layout.Run) -> dict[str, float]:
        folder, config = pathlib.Path(run.task_folder("export")), run.config
        with checkpoint.opened(run.folder) as checkpoints:
            step = checkpoints.existing_step()
        if not isinstance(config.optim.ema_decay, int | float):  # it becomes part of a path
            raise UserError(f"config.optim.ema_decay {config.optim.ema_decay!r} is no number; mend config.json.")
        stem = f"ema_{config.optim.ema_decay}_{step:07d}"
        files.write_safetensors(folder / f"{stem}.safetensors", own.flatten(model.variables))
        run_config.save(config, folder)
        written = [f"{stem}.safetensors", layout.CONFIG]
        try:
            used = model.variables | {"params": parameters.used(model.method, model.variables["params"])}
            files.write_torch(folder / f"{stem}.pt", _official(config.method, used, step))
            written.append(f"{stem}.pt")
        except UserError as error:
            log.warning("No official checkpoint was written. %s", error)
        log.info("Step %d is in %s: %s.", step, folder, ", ".join(written))
        run.write_numbers("export", {"step": step, "files": written})
        return {"step": step}


def _official(method: Mapping[str, Any], variables: PyTree, step: int) -> dict[str, Any]:
    """What the official code saves, in its names, those that are of no use here included."""
    if method["name"] not in port.names():
        raise UserError(f"There is no official code for {method['name']}.")
    source = port.source(method["name"])
    tensors = source.table(method).to_official(variables)
    return parts.nest(tensors | source.unused(method, tensors), source.PARTS, step)


Task = Export
