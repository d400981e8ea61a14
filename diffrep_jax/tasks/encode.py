"""Encode a data set once: codes, labels, mean and deviation in one file, which probe, manipulate and a prior read.

Writes to `<workdir>/encode/`: <dataset>_<split>.npz and metrics.json. The file grows in parts, so that what was stopped
or killed goes on where it was, and the hosts of a cluster share the parts.
"""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from diffrep_jax import config as configs
from diffrep_jax import data
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.tasks import base
from diffrep_jax.train.runtime import is_first, wait_for_all
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

PART = 8192  # images in a part
SAME = 1e-4  # codes of one network on two machines differ less, relative to their norm


@dataclasses.dataclass(frozen=True)
class Codes:
    """The codes of a data set, float32, and its labels where it has them (None, and no names, where not).

    Attributes:
      codes: [n, d]; mean, std: [d], over the n.
      label: int [n], by class_names; attributes: float32 [n, k], by attribute_names.
    """

    codes: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    label: np.ndarray | None
    class_names: tuple[str, ...]
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Encode:
    """The fields of `config.tasks.encode`.

    Attributes:
      dataset: "" for the run's own; split: of it.
      num_images: its first ones, -1 for all; batch_size: images at a time.
    """

    needs_run = True

    dataset: str
    split: str
    num_images: int
    batch_size: int
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        check_encoding("encode", self.dataset, self.num_images, self.batch_size)

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        model = Inference(method, variables, mesh_of(variables))
        dataset = open_labelled(config, self.dataset, self.split, self.data_dir)
        found = codes_of(model, dataset, config, workdir, self.num_images, self.batch_size)
        folder = base.output_folder(workdir, "encode")
        numbers = {"images": len(found.codes), "latent_dim": found.codes.shape[1]}
        labels = {"classes": len(found.class_names), "attributes": len(found.attribute_names)}
        base.write_metrics(folder, numbers | labels | {"dataset": dataset.name, "split": self.split})
        log.info("%d codes of %d numbers are in %s", *found.codes.shape, _path(folder, dataset))
        return numbers


def check_encoding(task: str, dataset: str, num_images: int, batch_size: int) -> None:
    """Raise UserError for settings of a task that no data set can be encoded with."""
    if batch_size < 1:
        raise UserError(f"The batch size {batch_size} of tasks.{task} must be at least 1.")
    if num_images < 1 and num_images != -1:
        raise UserError(f"tasks.{task}.num_images {num_images} must be at least 1, or -1 for all.")
    if dataset and dataset not in data.dataset_names():
        raise unknown("data set", dataset, data.dataset_names(), f"tasks.{task}.dataset")


def open_labelled(config: Any, name: str, split: str, data_dir: pathlib.Path | None) -> Any:
    """The data set `name`, or the run's own for "", in the shape that its model takes, with all labels that it has."""
    section = config.data
    shape = {"image_size": section.image_size, "channels": section.channels}
    name = name or section.name
    dataset = data.open_dataset(name, split=split, data_dir=data_dir, **shape)
    try:
        return data.open_dataset(name, split=split, data_dir=data_dir, attributes=True, **shape)
    except data.NoAttributes:
        return dataset


def codes_of(
    model: Inference, dataset: Any, config: Any, workdir: pathlib.Path, num_images: int, batch_size: int
) -> Codes:
    """The codes of a data set: from `<workdir>/encode/` if they are of this very network, else encoded and kept there.

    Beside training, in a folder that is no run, nothing is kept. Raises UserError where there are fewer images.
    """
    count = len(dataset) if num_images == -1 else num_images
    if count > len(dataset):
        raise UserError(
            f"{count} images were asked for: split '{dataset.split}' of '{dataset.name}' has {len(dataset)}; ask less."
        )
    batch_size = min(batch_size, count)

    def encode(numbers: range) -> Arrays:
        bad = config.data.max_bad_fraction
        parts: list[Arrays] = []
        batches = data.ordered_batches(dataset, batch_size=batch_size, indices=numbers, max_bad_fraction=bad)
        for batch in base.progress(batches, -(-len(numbers) // batch_size), f"encode {numbers.start:,} of {count:,}"):
            labels = {name: batch[name] for name in ("label", "attributes") if name in batch}
            parts.append({"codes": model.encode(batch["image"])} | labels)
        return _joined(parts)

    names = {"class_names": dataset.class_names, "attribute_names": dataset.attribute_names}
    if not configs.is_run(workdir):
        return _codes(encode(range(count)), names)
    path = _path(base.output_folder(workdir, "encode"), dataset)
    witness = _witness(model, batch_size)

    def identity_of(images: int) -> Arrays:
        owner = [dataset.name, dataset.split, str(dataset.source.path), len(dataset), images, *names.values()]
        return {"owner": np.array(json.dumps(owner)), "witness": witness}

    identity = identity_of(count)
    if _is_of(path, identity) or _is_of(path, identity_of(len(dataset))):  # all of them serve where fewer are asked for
        log.info("The codes in %s are of this network: used.", path)
        return _codes({name: values[:count] for name, values in _read(path).items()}, names)
    found = _codes(_encode_in_parts(path.with_suffix(".parts"), identity, count, encode), names)
    if is_first():
        _save(path, {k: np.asarray(v) for k, v in vars(found).items() if v is not None and len(v)} | identity)
        shutil.rmtree(path.with_suffix(".parts"))
    wait_for_all("encoded")
    return found


def _path(folder: pathlib.Path, dataset: Any) -> pathlib.Path:
    return folder / f"{dataset.name}_{dataset.split}.npz"


def _witness(model: Inference, batch_size: int) -> np.ndarray:
    """The code of one fixed picture of noise, [d]: it tells one network from another, whatever file it came from."""
    method = model.method
    shape = (batch_size, method.image_size, method.image_size, method.channels)
    return model.encode(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))[0]


def _is_of(path: pathlib.Path, identity: Mapping[str, np.ndarray]) -> bool:
    """Whether a file holds what this network makes of these images."""
    try:
        file = np.load(path)
    except (OSError, ValueError, zipfile.BadZipFile):
        return False
    with file:
        if not identity.keys() <= set(file.files) or file["owner"] != identity["owner"]:
            return False
        theirs, ours = file["witness"], identity["witness"]
    return bool(theirs.shape == ours.shape and np.linalg.norm(theirs - ours) <= SAME * np.linalg.norm(ours))


def _encode_in_parts(
    folder: pathlib.Path, identity: Mapping[str, np.ndarray], count: int, encode: Callable[[range], Arrays]
) -> Arrays:
    """What `encode` makes of the images 0 .. count - 1, by parts in files; those that are there are not redone."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {folder / f"{start:09d}.npz": range(start, min(start + PART, count)) for start in range(0, count, PART)}
    for path in list(parts)[jax.process_index() :: jax.process_count()]:
        if not _is_of(path, identity):
            _save(path, encode(parts[path]) | identity)
    wait_for_all("parts")
    return _joined([_read(path) for path in parts])


def _read(path: pathlib.Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in ("codes", "label", "attributes") if name in file.files}


def _save(path: pathlib.Path, arrays: Arrays) -> None:
    """All of the file or nothing."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(temporary, path)


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _codes(arrays: Arrays, names: Mapping[str, tuple[str, ...]]) -> Codes:
    codes = arrays["codes"].astype(np.float64)
    moments = {"mean": codes.mean(0).astype(np.float32), "std": codes.std(0).astype(np.float32)}
    return Codes(**({"label": None, "attributes": None} | arrays | moments), **names)


Task = Encode
