"""Write a run's averaged weights as files that last: safetensors in our names, and the official PyTorch checkpoint.

To `<workdir>/export/`: `ema_<decay>_<step>.safetensors` with `config.json` beside it, which `--task=import` reads, and
`ema_<decay>_<step>.pt` in the official names and layout, which the official code loads. Where that layout has weights
that are not averaged, too, those in the file are the averaged ones as well.
"""

import dataclasses
import logging
import pathlib
from typing import Any

from diffrep_jax import config as configs
from diffrep_jax import port
from diffrep_jax.errors import UserError
from diffrep_jax.port import files, own, parts
from diffrep_jax.tasks import base
from diffrep_jax.train import checkpoint, frozen
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Export:
    """Needs nothing to be said; without PyTorch the .pt file is left out, and the log says so."""

    needs_run = True

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        folder = base.output_folder(workdir, "export")
        with checkpoint.opened(workdir) as checkpoints:
            step = checkpoints.latest_step()
        stem = f"ema_{config.optim.ema_decay}_{step:07d}"
        files.write_safetensors(folder / f"{stem}.safetensors", own.flatten(variables))
        configs.save(config, folder)
        written = [f"{stem}.safetensors", configs.FILE_NAME]
        try:
            used = variables | {"params": frozen.used(method, variables["params"])}
            files.write_torch(folder / f"{stem}.pt", _official(config.method, used, step))
            written.append(f"{stem}.pt")
        except UserError as error:
            log.warning("No official checkpoint was written. %s", error)
        log.info("Step %d is in %s: %s.", step, folder, ", ".join(written))
        base.write_metrics(folder, numbers := {"step": step, "files": written})
        return numbers


def _official(method: Any, variables: PyTree, step: int) -> dict[str, Any]:
    """What the official code saves, in its names, those that are of no use here included."""
    if method.name not in port.names():
        raise UserError(f"There is no official code for {method.name}.")
    source = port.source(method.name)
    tensors = source.table(method).to_official(variables)
    return parts.nest(tensors | source.unused(method, tensors), source.PARTS, step)


Task = Export
