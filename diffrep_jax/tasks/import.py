"""Make a run of a checkpoint file: an official one (.pt or .safetensors), or what `--task=export` wrote.

The run is an ordinary one: every task and `diffrep_jax.load` take it, and training goes on from it. The file's weights
become both the raw and the averaged ones; its optimizer, if it ever had one, is not part of it. An official config.yml
beside the file says the model's shape; the run's config has it then.
"""

import dataclasses
import logging
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffrep_jax import config as configs
from diffrep_jax import data, port
from diffrep_jax.data.sources import open_source
from diffrep_jax.data.sources.lmdb import LmdbSource
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.methods.base import build
from diffrep_jax.port import config_yml, files, own, parts
from diffrep_jax.tasks import base
from diffrep_jax.train import checkpoint
from diffrep_jax.train.sharding import make_mesh, state_shardings
from diffrep_jax.train.state import abstract_variables, imported_state
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Import:
    """Reads `--checkpoint`; with `--images` also measures what the file does not tell (`Method.untold`).

    Attributes:
      weights: of a file that has both, the averaged ones ("ema") or those that training left ("live").
      num_images, batch_size, seed: how many of the images are measured on, how many at a time, and with which noise.
    """

    needs_run = False

    weights: str
    num_images: int
    batch_size: int
    seed: int
    checkpoint: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)
    images: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        if self.weights not in parts.WEIGHTS:
            raise unknown("weights", self.weights, parts.WEIGHTS, "config.tasks.import.weights")

    def run(self, method: Any, variables: None, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        """Write `config.json`, the checkpoint, and `import/metrics.json`, which says what was found."""
        if self.checkpoint is None:
            raise UserError("--task=import needs a file; add --checkpoint=FILE.")
        _refuse_a_run(workdir)
        method, variables, file = self._read(self.checkpoint, config)
        dataset = self._open_images(config)
        mesh = make_mesh(devices=jax.local_devices())
        variables = jax.device_put(variables, state_shardings(mesh, variables))
        found = self._tell(method, Inference(method, variables, mesh), dataset, config.data.max_bad_fraction)
        with config.unlocked():
            config.method.update(found["chosen"])
        step = file["step"]
        workdir.mkdir(parents=True, exist_ok=True)
        with checkpoint.opened(workdir) as checkpoints:
            checkpoints.save(step, imported_state(method, variables, step))
        configs.save(config, workdir)
        leaves = jax.tree.leaves(variables["params"])
        numbers = {"parameters": sum(leaf.size for leaf in leaves), **file, **found}
        base.write_metrics(base.output_folder(workdir, "import"), numbers | {"source": str(self.checkpoint)})
        log.info("%s is the run %s now, at step %d.", self.checkpoint, workdir, step)
        return numbers

    def _read(self, path: pathlib.Path, config: Any) -> tuple[Any, PyTree, dict[str, Any]]:
        """(the method, its variables, what the file says), `config` made to fit an official config.yml.

        Raises UserError for a file that does not fit the model.
        """
        contents, name = files.read_parts(path), config.method.name
        source = port.source(name) if name in port.names() else None
        tensors, chosen = parts.choose(contents, source.PARTS if source else {}, self.weights, str(path))
        step = step_of(path) if contents.step is None else contents.step
        file = {"step": step, "parts": chosen, "config_yml": None, "ignored": []}
        if own.is_own(tensors):
            method = build(config.method)
            return method, own.unflatten(tensors, _template(method), str(path)), file
        if source is None:
            raise UserError(f"No official {name} checkpoint can be read; {path} is not one of --task=export.")
        if source.PARTS:
            file["config_yml"] = _take_shape(config, source, path)
        method = build(config.method)
        source.check(config.method, {name: value.shape for name, value in tensors.items()}, str(path))
        table, template = source.table(config.method), _template(method)
        file["ignored"] = ignored = list(table.match(tensors, template).ignored)
        variables = table.to_variables(tensors, template, str(path))
        log.info(
            "%s: %d names matched; %d of no use here: %s.", path, len(tensors) - len(ignored), len(ignored), ignored
        )
        return method, variables, file

    def _open_images(self, config: Any) -> Any:
        """What `--images` names: an LMDB with the framing of the config's data set, other images as they are."""
        if self.images is None:
            return None
        section = config.data
        known = isinstance(open_source(self.images), LmdbSource)
        name, split = (section.name, section.split) if known else ("folder", "all")
        return data.open_dataset(
            name, split=split, image_size=section.image_size, channels=section.channels, data_dir=self.images
        )

    def _tell(self, method: Any, model: Inference, dataset: Any, max_bad_fraction: float) -> dict[str, Any]:
        """{"chosen": {field: value}, "evidence": {field: {value: error}}} for the fields that no file tells."""
        chosen = {field: getattr(method, field) for field in method.untold}
        if dataset is None:
            for field, value in chosen.items():
                log.info("%s=%s is the config's: no checkpoint tells it. --images=PATH measures it.", field, value)
            return {"chosen": chosen, "evidence": {}}
        evidence = {}
        for field, errors in self._evidence(model, dataset, max_bad_fraction).items():
            if not np.isfinite(errors).all():
                raise UserError(
                    f"The errors with {self.checkpoint} are not finite ({errors}): its weights are damaged."
                )
            by_value = dict(zip(method.untold[field], errors, strict=True))
            chosen[field], why = decide(by_value, chosen[field])
            evidence[field] = {str(value): error for value, error in by_value.items()}
            measured = ", ".join(f"{error:.5g} with {value}" for value, error in by_value.items())
            log.info("%s: the error next to t = T is %s; %s %s.", field, measured, chosen[field], why)
        return {"chosen": chosen, "evidence": evidence}

    def _evidence(self, model: Inference, dataset: Any, max_bad_fraction: float) -> dict[str, list[float]]:
        """{field: the mean error under each of its values} over the images."""
        parts, first = [], 0
        batches = data.ordered_batches(
            dataset, batch_size=self.batch_size, num_images=self.num_images, max_bad_fraction=max_bad_fraction
        )
        for batch in batches:
            parts.append(model.evidence(batch["image"], self.seed, first))
            first += len(batch["image"])
        return {field: np.concatenate([part[field] for part in parts]).mean(0).tolist() for field in parts[0]}


def step_of(path: pathlib.Path) -> int:
    """The number at the end of a checkpoint's name, as in ema_0.9999_1020000.pt; 0 where there is none."""
    found = re.search(r"(\d+)$", path.stem)
    return int(found[1]) if found else 0


def _refuse_a_run(workdir: pathlib.Path) -> None:
    for name in (configs.FILE_NAME, checkpoint.FOLDER):
        if (workdir / name).exists():
            raise UserError(f"{workdir} holds a run already ({name}); give another --workdir.")


def _template(method: Any) -> PyTree:
    return abstract_variables(method, make_mesh(devices=jax.local_devices()))


def _take_shape(config: Any, source: Any, path: pathlib.Path) -> str | None:
    """Set in `config` what the official config.yml beside a checkpoint tells; its path, None where there is none."""
    yml = config_yml.find(path)
    if yml is None:
        log.info(
            "No config.yml is beside %s: %s are the config's, no file tells them.", path, ", ".join(source.UNDETERMINED)
        )
        return None
    told = source.shape(yml)
    changes = _changes(config.method, told, "method")
    with config.unlocked():
        config.method.update(told)
        config.data.update({field: told[field] for field in ("image_size", "channels") if field in told})
    log.info("%s says the model's shape; %s.", yml.path, f"set: {', '.join(changes)}" if changes else "as the config")
    return str(yml.path)


def _changes(section: Any, told: Mapping[str, Any], place: str) -> list[str]:
    """What `told` sets in a section of the config to another value."""
    changes = []
    for field, value in told.items():
        if isinstance(value, Mapping):
            changes += _changes(section[field], value, f"{place}.{field}")
        elif section[field] != value:
            changes.append(f"{place}.{field}={value} (was {section[field]})")
    return changes


def decide(errors: Mapping[Any, float], configured: Any) -> tuple[Any, str]:
    """The value with the lowest error, and what to say of it; the configured one where they do not differ."""
    best = min(errors, key=errors.__getitem__)
    if np.ptp(list(errors.values())) <= 1e-6 * max(errors.values()):
        return configured, "stays, as the images do not tell"
    if best == configured:
        return best, "fits, as the config says"
    return best, f"fits and goes into the run's config.json, not the config's {configured}"


Task = Import
