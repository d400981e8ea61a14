"""Write a run's averaged weights as files that last: safetensors in our names, and the official PyTorch checkpoint.

To `<workdir>/export/`: `ema_<decay>_<step>.safetensors` with `config.json` next to it, which `diffrep_jax.load` opens
and `--task=import` reads, a model card (README.md) with what the tasks have measured, the heads that `probe` has left,
and `ema_<decay>_<step>.pt` in the official names and layout, which the official code loads. Where that layout has
weights that are not averaged, too, those in the file are the averaged ones as well. A DDPM and a latent prior go into
PDAE's layout, or into that of DiffAE's `last.ckpt`. With `push` all but the .pt go to the Hugging Face Hub.
"""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import ml_dtypes
import numpy as np

from diffrep_jax import port
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import heads
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods import parameters
from diffrep_jax.port import diffae, files, own, parts
from diffrep_jax.report.card import card
from diffrep_jax.report.collect import collect
from diffrep_jax.runs import checkpoint, hub, weights
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import CONFIG, Run, as_path, local, write_arrays, write_text
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

CARD = "README.md"
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
LAYOUTS = ("", "diffae")


@dataclasses.dataclass(frozen=True)
class Export:
    """Without PyTorch the .pt file is left out, and the log says so.

    Attributes:
      dtype: of the parameters in the safetensors file; those of 16 bits take half the space.
      push: a repository OWNER/NAME on the Hub, made private where it is new; "" for none.
      layout: "diffae" for that of DiffAE, which a DDPM and a latent prior can have too; "": that of the method's paper.
      autoencoder: the run of the DiffAE that goes with a prior into such a file, as in the official one; "": none.
    """

    needs_run: ClassVar[bool] = True

    dtype: str = "float32"
    push: str = ""
    layout: str = ""
    autoencoder: str = ""

    def __post_init__(self):
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES, "config.tasks.export.dtype")
        if self.push:
            hub.check(self.push, "config.tasks.export.push")
        if self.layout not in LAYOUTS:
            raise unknown("layout", self.layout, LAYOUTS, "config.tasks.export.layout")
        if self.autoencoder and not self.layout:
            raise UserError("config.tasks.export.autoencoder goes with a prior into DiffAE's file: add layout=diffae.")

    def run(self, model: Model, run: Run) -> dict[str, float]:
        local(run.folder, "--task=export")
        if weights.is_export(run.folder):
            raise UserError(
                f"{run.folder} is what --task=export has written: open it with diffrep_jax.load, or make a run of it "
                f"with --task=import --checkpoint={weights.exported_file(run.folder)} and another --workdir."
            )
        config = run.config
        with checkpoint.opened(run.folder) as checkpoints:
            step = checkpoints.existing_step()
        if not isinstance(config.optim.ema_decay, int | float):  # it becomes part of a path
            raise UserError(f"config.optim.ema_decay {config.optim.ema_decay!r} is no number; mend config.json.")
        folder = pathlib.Path(run.task_folder("export"))
        stem = f"ema_{config.optim.ema_decay}_{step:07d}"
        tensors = own.narrowed(own.flatten(model.variables), DTYPES[self.dtype])
        files.write_safetensors(folder / f"{stem}.safetensors", tensors)
        for older in (*folder.glob("*.safetensors"), *folder.glob("*.pt")):  # one folder, one model
            if older.stem != stem:
                older.unlink()
        run_config.save(config, folder)
        write_text(folder / CARD, self._card(model, run, folder / f"{stem}.safetensors"))
        written = [f"{stem}.safetensors", CONFIG, CARD, *self._write_heads(model, run, folder)]
        if self.push:
            log.info("On the Hub: %s", hub.push(folder, written, self.push))
        try:
            used = model.variables | {"params": parameters.used(model.method, model.variables["params"])}
            files.write_torch(folder / f"{stem}.pt", self._official(config.method, used, step))
            written.append(f"{stem}.pt")
        except UserError as error:
            log.warning("No official checkpoint was written. %s", error)
        log.info("Step %d is in %s: %s.", step, folder, ", ".join(written))
        run.write_numbers("export", {"step": step, "files": written})
        return {"step": step}

    def _write_heads(self, model: Model, run: Run, folder: pathlib.Path) -> list[str]:
        """The heads that `probe` has left for these weights, with the fingerprint of the exported ones; their files."""
        shutil.rmtree(folder / heads.FOLDER, ignore_errors=True)  # of earlier weights
        known = heads.stored(run.folder, model) if as_path(run.folder / heads.FOLDER).is_dir() else {}
        if not known:
            return []
        own = (model if self.dtype == "float32" else open_run(folder)).fingerprint()
        (folder / heads.FOLDER).mkdir()
        written = []
        for (dataset, part), head in known.items():
            written.append(f"{heads.FOLDER}/{part}_{dataset}.npz")
            write_arrays(as_path(folder / written[-1]), **dataclasses.replace(head, fingerprint=own).arrays())
        return written

    def _card(self, model: Model, run: Run, file: pathlib.Path) -> str:
        facts = {
            "file": file.name,
            "bytes": file.stat().st_size,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.variables["params"])),
            "type of the parameters": self.dtype,
        }
        address = f"hf://{self.push}" if self.push else str(file.parent)
        return card(collect(pathlib.Path(run.folder)), type(model.method).__name__, address, facts)

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
