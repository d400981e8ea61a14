"""Make a run of a checkpoint file: an official one (.pt or .safetensors), or what `--task=export` wrote.

The run is an ordinary one: every task and `diffrep_jax.load` take it, and training goes on from it. The file's weights
become both the raw and the averaged ones; its optimizer, if it ever had one, is not part of it. An official config.yml
next to the file says the model's shape; the run's config has it then. Of DiffAE's files the tensors say it. The run
computes in float32, as the authors' encoders and heads do, unless `dtype` says otherwise.

DiffAE's `latent.pkl` (or `latent.ckpt`), the codes of the training images, makes no run: they go to
`<workdir>/encode/`, where the config of a latent prior takes them.
"""

import dataclasses
import logging
import pathlib
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import jax
import numpy as np

from diffrep_jax import data, port
from diffrep_jax.data.sources import open_source
from diffrep_jax.data.sources.lmdb import LmdbSource
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import check_numbers
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import recipe
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import Method, build, not_in_dtype
from diffrep_jax.port import config_yml, diffae, files, own, parts
from diffrep_jax.runs import checkpoint, layout
from diffrep_jax.runs import config as run_config
from diffrep_jax.sharding import make_mesh, placed, state_shardings
from diffrep_jax.train.state import imported_state
from diffrep_jax.types import Config, PyTree

log = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "")


@dataclasses.dataclass(frozen=True)
class Import:
    """Reads `--checkpoint`; with `--images` also measures what the file does not say (`Method.undetermined`).

    Attributes:
      weights: of a file that has both, the averaged ones ("ema") or those that training left ("live").
      dtype: what the run's U-Nets compute in; "" for the config's. bfloat16 cost an rms of 8e-3 of a sample where all
        networks had it.
      num_images, batch_size, seed: how many of the images are measured on, how many at a time, and with which noise.
    """

    needs_run: ClassVar[bool] = False

    weights: str = "ema"
    dtype: str = "float32"
    num_images: int = 16
    batch_size: int = 16
    seed: int = 0
    checkpoint: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)
    images: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        if self.weights not in parts.WEIGHTS:
            raise unknown("weights", self.weights, parts.WEIGHTS, "config.tasks.import.weights")
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES, "config.tasks.import.dtype")
        check_numbers(self, "tasks.import", {"num_images": 1, "batch_size": 1, "seed": 0})

    def run(self, model: None, run: layout.Run) -> dict[str, float]:
        """Write `config.json`, the checkpoint, and `import/metrics.json`, which says what was read and measured."""
        if self.checkpoint is None:
            raise UserError("--task=import needs a file; add --checkpoint=FILE.")
        latents = diffae.latents(files.read_parts(self.checkpoint), str(self.checkpoint))
        if latents is not None:
            return _keep_codes(latents, run)
        _refuse_a_run(run)
        config = run.config
        self._set_dtype(config)
        method, variables, file = self._read(self.checkpoint, config)
        _refuse_non_finite(variables, self.checkpoint)
        dataset = self._open_images(config)
        mesh = make_mesh(devices=jax.local_devices())
        variables = jax.device_put(variables, state_shardings(mesh, variables))
        measured = self._choose(Model(method, variables, mesh, recipe(config)), dataset, config.data.max_bad_fraction)
        with config.unlocked():
            config.method.update(measured["chosen"])
        step = file["step"]
        with checkpoint.opened(layout.made(run.folder), writer=True) as checkpoints:
            checkpoints.save(step, imported_state(method, variables, step).parts())
        run_config.save(config, run.folder)
        how = {"dtype": config.method.dtype, "source": str(self.checkpoint)}
        numbers = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))}
        run.write_numbers("import", numbers | file | measured | how)
        log.info("%s is the run %s now, at step %d.", self.checkpoint, run.folder, step)
        return {**numbers, "step": step}

    def _set_dtype(self, config: Config) -> None:
        before, wanted = config.method.dtype, self.dtype or config.method.dtype
        with config.unlocked():
            config.method.dtype = wanted
        changed = f", not in the config's {before}" if wanted != before else ""
        log.info("Computes in %s%s%s.", wanted, changed, not_in_dtype(config.method))

    def _read(self, path: pathlib.Path, config: Config) -> tuple[Method, PyTree, dict[str, Any]]:
        """(the method, its variables, what the file says), `config` made to fit an official config.yml.

        Raises UserError for a file that does not fit the model.
        """
        contents, name = files.read_parts(path), config.method.name
        source = port.source(name) if name in port.names() else None
        network = diffae.network_in(name, contents)
        held = {network.part: ""} if network else source.PARTS if source else {}
        tensors, chosen = parts.choose(contents, held, self.weights, str(path))
        step = step_of(path) if contents.step is None else contents.step
        file = {"step": step, "parts": chosen, "config_yml": None, "ignored": []}
        if own.is_own(tensors):
            method = build(config.method)
            return method, own.unflatten(tensors, _template(method), str(path)), file
        if source is None:
            raise UserError(f"No official {name} checkpoint can be read; {path} is not one of --task=export.")
        shapes = {name: value.shape for name, value in tensors.items()}
        if network:
            _set_shape(config, diffae.infer(name, shapes, str(path)), str(path))
        elif source.PARTS:
            file["config_yml"] = _take_shape(config, source, path)
        method = build(config.method)
        source.check(config.method, shapes, str(path))
        table, template = source.table(config.method), _template(method)
        file["ignored"] = ignored = list(table.match(tensors, template).ignored)
        variables = table.to_variables(tensors, template, str(path))
        if network:
            variables = method.with_statistics(variables, diffae.code_statistics(contents))
        log.info(
            "%s: %d names matched; %d of no use here: %s.", path, len(tensors) - len(ignored), len(ignored), ignored
        )
        return method, variables, file

    def _open_images(self, config: Config) -> data.ImageDataset | None:
        """What `--images` names: an LMDB with the framing of the config's data set, other images as they are."""
        if self.images is None:
            return None
        section = config.data
        known = isinstance(open_source(self.images), LmdbSource)
        name, split = (section.name, section.split) if known else ("folder", "all")
        return data.open_dataset(
            name, split=split, image_size=section.image_size, channels=section.channels, data_dir=self.images
        )

    def _choose(self, model: Model, dataset: data.ImageDataset | None, max_bad_fraction: float) -> dict[str, Any]:
        """{"chosen": {field: value}, "evidence": {field: {value: error}}} for the fields that no file determines."""
        method = model.method
        chosen = {field: getattr(method, field) for field in method.undetermined}
        if dataset is None:
            for field, value in chosen.items():
                log.info("%s=%s is the config's: no checkpoint says it. --images=PATH measures it.", field, value)
            return {"chosen": chosen, "evidence": {}}
        measured = {}
        for field, errors in self._errors(model, dataset, max_bad_fraction).items():
            if not np.isfinite(errors).all():
                raise UserError(
                    f"The errors with {self.checkpoint} are not finite ({errors}): its weights are damaged."
                )
            by_value = dict(zip(method.undetermined[field], errors, strict=True))
            chosen[field], why = decide(by_value, chosen[field])
            measured[field] = {str(value): error for value, error in by_value.items()}
            each = ", ".join(f"{error:.5g} with {value}" for value, error in by_value.items())
            log.info("%s: the error next to t = T is %s; %s %s.", field, each, chosen[field], why)
        return {"chosen": chosen, "evidence": measured}

    def _errors(self, model: Model, dataset: data.ImageDataset, max_bad_fraction: float) -> dict[str, list[float]]:
        """{field: the mean error under each of its values} over the images."""
        rows: list[dict[str, np.ndarray]] = []
        first = 0
        batches = data.ordered_batches(
            dataset, batch_size=self.batch_size, num_images=self.num_images, max_bad_fraction=max_bad_fraction
        )
        for batch in batches:
            rows.append(model.candidate_errors(batch["image"], self.seed, first))
            first += len(batch["image"])
        return {field: np.concatenate([row[field] for row in rows]).mean(0).tolist() for field in rows[0]}


def _keep_codes(latents: Mapping[str, np.ndarray], run: layout.Run) -> dict[str, float]:
    """Write codes as `--task=encode` does, but for the network's fingerprint, which nothing here says."""
    section = run.config.data
    path = layout.made(run.task_folder("encode")) / f"{section.name}_{section.split}.npz"
    layout.write_arrays(path, **latents)
    log.info("%d codes of %d numbers are in %s, for --data_dir of a latent prior.", *latents["codes"].shape, path)
    return dict(zip(("images", "latent_dim"), map(float, latents["codes"].shape), strict=True))


def step_of(path: pathlib.Path) -> int:
    """The number at the end of a checkpoint's name, as in ema_0.9999_1020000.pt; 0 where there is none."""
    number = re.search(r"(\d+)$", path.stem)
    return int(number[1]) if number else 0


def _refuse_a_run(run: layout.Run) -> None:
    for name in (layout.CONFIG, layout.CHECKPOINTS):
        if (run.folder / name).exists():
            raise UserError(f"{run.folder} holds a run already ({name}); give another --workdir.")


def _refuse_non_finite(variables: PyTree, path: pathlib.Path) -> None:
    for leaf_path, leaf in jax.tree.leaves_with_path(variables):
        if not np.isfinite(np.asarray(leaf)).all():
            name = "/".join(str(key.key) for key in leaf_path)
            raise UserError(f"{path} holds values that are not finite, first in {name}; get an undamaged file.")


def _template(method: Method) -> PyTree:
    return placed(parameters.shapes(method), make_mesh(devices=jax.local_devices()))


def _take_shape(config: Config, source: ModuleType, path: pathlib.Path) -> str | None:
    """Set in `config` what the official config.yml beside a checkpoint tells; its path, None where there is none."""
    yml = config_yml.find(path)
    if yml is None:
        log.info("%s has no config.yml: no file determines %s, the config does.", path, ", ".join(source.UNDETERMINED))
        return None
    _set_shape(config, source.shape(yml), str(yml.path))
    return str(yml.path)


def _set_shape(config: Config, shape: Mapping[str, Any], source: str) -> None:
    """Set in `config` the fields of `method`, and of `data` what goes with them, that `source` says."""
    changes = _changes(config.method, shape, "method")
    with config.unlocked():
        config.method.update(shape)
        config.data.update({field: shape[field] for field in ("image_size", "channels") if field in shape})
    log.info("%s says the model's shape; %s.", source, f"set: {', '.join(changes)}" if changes else "as the config")


def _changes(section: Any, values: Mapping[str, Any], place: str) -> list[str]:
    """What `values` set in a section of the config to another value."""
    changes = []
    for field, value in values.items():
        if isinstance(value, Mapping):
            changes += _changes(section[field], value, f"{place}.{field}")
        elif field not in section:
            changes.append(f"{place}.{field}={value}")
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
