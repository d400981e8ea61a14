"""The codes of a data set, encoded once and kept in the run's folder `encode`, for all tasks that read codes."""

import dataclasses
import json
import logging
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from diffrep_jax import data, hosts
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model, same_network
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run, made, write_arrays
from diffrep_jax.tasks import base
from diffrep_jax.types import Config

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

FOLDER = "encode"
PART = 8192  # images in a part


@dataclasses.dataclass(frozen=True)
class Codes:
    """The codes of a data set, float32, and its labels where it has them (None, and no names, where not).

    Attributes:
      codes: [n, d]; mean, std: [d], over the n; fingerprint: [d], the network's.
      label: int [n], by class_names; attributes: float32 [n, k], by attribute_names.
    """

    codes: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    fingerprint: np.ndarray
    label: np.ndarray | None
    class_names: tuple[str, ...]
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]


def encoding(model: Model) -> dict[str, str | int]:
    """How the codes are made, for metrics.json and for the file that keeps them."""
    how = model.sampling
    return {"encode": how.encode} | ({"encode_seed": how.seed} if how.encode == "sample" else {})


def open_labelled(config: Config, name: str, split: str, data_dir: pathlib.Path | None) -> data.ImageDataset:
    """The data set `name`, or the run's own for "", in the shape that its model takes, with all labels that it has."""
    section = config.data
    shape = {"image_size": section.image_size, "channels": section.channels}
    name = name or section.name
    dataset = data.open_dataset(name, split=split, data_dir=data_dir, **shape)
    try:
        return data.open_dataset(name, split=split, data_dir=data_dir, attributes=True, **shape)
    except data.NoAttributes:
        return dataset


def path_of(folder: epath.Path, dataset: str, split: str) -> epath.Path:
    return folder / f"{dataset}_{split}.npz"


def codes_of(model: Model, dataset: data.ImageDataset, run: Run, num_images: int, batch_size: int) -> Codes:
    """The codes of a data set: from the folder `encode` if they are of this very network, else encoded and kept there.

    Beside training, in a folder that is no run, nothing is kept. Raises UserError where there are fewer images.
    """
    count = len(dataset) if num_images == -1 else num_images
    if count > len(dataset):
        raise UserError(
            f"{count} images were asked for: split '{dataset.split}' of '{dataset.name}' has {len(dataset)}; ask less."
        )
    batch_size = min(batch_size, count)

    def encode(numbers: range) -> Arrays:
        bad = run.config.data.max_bad_fraction
        parts: list[Arrays] = []
        first = numbers.start
        batches = data.ordered_batches(dataset, batch_size=batch_size, indices=numbers, max_bad_fraction=bad)
        for batch in base.progress(batches, -(-len(numbers) // batch_size), f"encode {numbers.start:,} of {count:,}"):
            labels = {name: batch[name] for name in ("label", "attributes") if name in batch}
            parts.append({"codes": model.encode(batch["image"], numbers=first)} | labels)
            first += len(batch["image"])
        return _joined(parts)

    names = {"class_names": dataset.class_names, "attribute_names": dataset.attribute_names}
    fingerprint = model.fingerprint(batch_size)
    if not run_config.is_run(run.folder):
        return _codes(encode(range(count)), fingerprint, names)
    path = path_of(run.task_folder(FOLDER), dataset.name, dataset.split)

    def identity_of(images: int) -> Arrays:
        owner = [dataset.name, dataset.split, str(dataset.source.path), len(dataset), images, *names.values()]
        owner += encoding(model).values() if model.sampling.encode != "mean" else ()
        return {"owner": np.array(json.dumps(owner)), "fingerprint": fingerprint}

    identity = identity_of(count)
    kept = _kept(path, identity) or _kept(path, identity_of(len(dataset)))  # all of them serve where fewer are wanted
    if kept is not None:
        log.info("The codes in %s are of this network: used.", path)
        return _codes({name: values[:count] for name, values in kept.items()}, fingerprint, names)
    hosts.wait_for_all("looked")  # and seen the same
    codes = _codes(_encode_in_parts(path.with_suffix(".parts"), identity, count, encode), fingerprint, names)
    hosts.wait_for_all("joined")  # all have read the parts
    if hosts.is_first():
        arrays = {k: np.asarray(v) for k, v in vars(codes).items() if v is not None and len(v)}
        write_arrays(path, **arrays | identity)
        shutil.rmtree(path.with_suffix(".parts"))
    hosts.wait_for_all("encoded")
    return codes


def _kept(path: epath.Path, identity: Mapping[str, np.ndarray]) -> Arrays | None:
    """What this network has made of these images, where the file holds that and is whole; else None."""
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}  # all of them: each has its checksum
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    if not identity.keys() <= arrays.keys() or arrays["owner"] != identity["owner"]:
        return None
    return _images(arrays) if same_network(arrays["fingerprint"], identity["fingerprint"]) else None


def _encode_in_parts(
    folder: epath.Path, identity: Mapping[str, np.ndarray], count: int, encode: Callable[[range], Arrays]
) -> Arrays:
    """What `encode` makes of the images 0 .. count - 1, by parts in files; those that are there are not redone."""
    made(folder)
    parts = {folder / f"{start:09d}.npz": range(start, min(start + PART, count)) for start in range(0, count, PART)}
    for path in list(parts)[hosts.index() :: hosts.count()]:
        if _kept(path, identity) is None:
            write_arrays(path, **encode(parts[path]), **identity)
    hosts.wait_for_all("parts")
    return _joined([_read(path) for path in parts])


def _read(path: epath.Path) -> Arrays:
    with np.load(path) as file:
        return _images(file)


def _images(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The arrays that have a row an image."""
    return {name: arrays[name] for name in ("codes", "label", "attributes") if name in arrays}


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _codes(arrays: Arrays, fingerprint: np.ndarray, names: Mapping[str, tuple[str, ...]]) -> Codes:
    codes = arrays["codes"].astype(np.float64)
    mean, std = codes.mean(0).astype(np.float32), codes.std(0).astype(np.float32)
    return Codes(
        codes=arrays["codes"],
        mean=mean,
        std=std,
        fingerprint=fingerprint,
        label=arrays["label"] if "label" in arrays else None,
        attributes=arrays["attributes"] if "attributes" in arrays else None,
        class_names=names["class_names"],
        attribute_names=names["attribute_names"],
    )
