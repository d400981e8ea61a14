"""The codes of a data set, encoded once and kept in the run's folder `encode`, for all tasks that read codes.

A code belongs to its image by the number of that in the data set. Labels are read from the data set, never from the
file, which has them for its readers elsewhere.
"""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from diffrep_jax import data, hosts
from diffrep_jax.data import fingerprint
from diffrep_jax.data.bad_entries import NoneReadable
from diffrep_jax.data.datasets import codes as codes_data
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs import lock
from diffrep_jax.runs.layout import Run, made, write_arrays
from diffrep_jax.runs.weights import same_network
from diffrep_jax.tasks import _code_files, base
from diffrep_jax.tasks._code_files import Arrays, Identity
from diffrep_jax.types import Config

log = logging.getLogger(__name__)

FOLDER = "encode"
PART = 8192  # images in a part
LABELS = ("label", "class_names", "attributes", "attribute_names")  # in the file; for its readers elsewhere alone


@dataclasses.dataclass(frozen=True)
class Codes:
    """The codes of a data set, float32, and its labels where it has them (None, and no names, where not).

    Attributes:
      codes: [n, d]; rows: int [n], the number of each one's image; mean, std: [d], over the n.
      label: int [n], by class_names; attributes: float32 [n, k], by attribute_names; binary: which of them are 0 or 1.
      identity: of which images, of which network, and how they were made.
    """

    codes: np.ndarray
    rows: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    label: np.ndarray | None
    class_names: tuple[str, ...]
    attributes: np.ndarray | None
    attribute_names: tuple[str, ...]
    binary: tuple[bool, ...]
    identity: Identity

    @property
    def fingerprint(self) -> np.ndarray:
        """The network's, [d]."""
        return self.identity.network

    def target_fingerprint(self, values: np.ndarray) -> str:
        """What tells a head that learns these values [n] from these codes from others, but for the network."""
        values = np.asarray(values, np.float32)
        return fingerprint.digest(self.identity.text(), self.rows.astype("<i8").tobytes(), values.tobytes())

    def first(self, count: int) -> "Codes":
        """Those of the first images of the data set."""
        return self if self.rows.max(initial=-1) < count else _with_moments(self, self.rows < count)


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


def check_count(dataset: data.ImageDataset, num_images: int) -> int:
    """How many images are meant, -1 being all; UserError where there are fewer."""
    count = len(dataset) if num_images == -1 else num_images
    if count > len(dataset):
        raise UserError(
            f"{count} images were asked for: split '{dataset.split}' of '{dataset.name}' has {len(dataset)}; ask less."
        )
    return count


def codes_of(model: Model, dataset: data.ImageDataset, run: Run, num_images: int, batch_size: int) -> Codes:
    """The codes of a data set: from the folder `encode` if they are of this very network and of these very images, else
    encoded and kept there, and the log says why.

    Beside training, in a folder that is no run, nothing is kept. Raises UserError where there are fewer images, where
    too many of them cannot be read, and where another process is encoding them; what was kept then stays as it is.
    """
    count = check_count(dataset, num_images)
    batch_size = min(batch_size, count)
    bad = run.config.data.max_bad_fraction
    identity = _identity(model, dataset, count, batch_size)

    def encode(numbers: range) -> Arrays:
        return _joined(list(_encoded(model, dataset, numbers, batch_size, bad)))

    if not run_config.is_run(run.folder):
        return _readable(_codes(encode(range(count)), dataset, identity), dataset, count, bad)
    path = path_of(run.task_folder(FOLDER), dataset.name, dataset.split)
    kept, why = _code_files.fresh(path, identity)
    hosts.wait_for_all("looked")  # and seen the same
    if kept is not None:
        log.info("The codes in %s are of this network and of these images: used.", path)
        codes = _codes(kept, dataset, identity)
        wanted = _readable(codes, dataset, count, bad)
        _write_if_other(path, codes, dataset, kept)
        hosts.wait_for_all("read")
        return wanted
    with _sole(path):
        if why:
            log.warning("The codes in %s are not used but made anew: %s.", path, why)
        folder = path.with_suffix(".parts")
        codes = _codes(_encode_in_parts(folder, identity, count, encode), dataset, identity)
        codes = _readable(codes, dataset, count, bad)
        hosts.wait_for_all("joined")  # all have read the parts
        _write_if_other(path, codes, dataset, {})
        if hosts.is_first():
            _remove_parts(folder, identity)
    hosts.wait_for_all("encoded")
    return codes


def _sole(path: epath.Path) -> contextlib.AbstractContextManager[None]:
    """No other process encodes these images meanwhile; UserError where one does."""
    if not hosts.is_first():
        return contextlib.nullcontext()
    held = path.with_name(f".{path.stem}.lock")
    return lock.holding(held, f"{path} is being made", f"or if it is gone delete {held}")


def _identity(model: Model, dataset: data.ImageDataset, count: int, batch_size: int) -> Identity:
    facts = {
        "images": hosts.agreed(dataset.fingerprint()),  # times of change may differ where each host has a copy
        "of": len(dataset),
        "count": count,
        "data set": dataset.name,
        "split": dataset.split,
        "image size": [model.image_size, model.channels],
    }
    how = {f"sampling.{name.removeprefix('encode_')}": value for name, value in encoding(model).items()}
    return Identity(facts | how, model.fingerprint(batch_size))


class _Numbered:
    """A data set whose examples know their numbers: an image that cannot be read is left out of a batch."""

    def __init__(self, dataset: data.ImageDataset):
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return {"image": self._dataset[index]["image"], "row": index}


def _encoded(model: Model, dataset: data.ImageDataset, numbers: range, batch_size: int, bad: float) -> Iterator[Arrays]:
    """The codes of these images, by batches, and their rows."""
    yield {"codes": np.zeros((0, model.latent_dim), np.float32), "rows": np.zeros(0, np.int64)}
    numbered: Any = _Numbered(dataset)
    batches = data.ordered_batches(numbered, batch_size=batch_size, indices=numbers, max_bad_fraction=bad)
    with contextlib.suppress(NoneReadable):  # the other parts may do
        for batch in base.progress(batches, -(-len(numbers) // batch_size), f"encode {numbers.start:,} on"):
            yield {"codes": model.encode(batch["image"], numbers=batch["row"]), "rows": batch["row"]}


def _readable(codes: Codes, dataset: data.ImageDataset, count: int, bad: float) -> Codes:
    """The codes of the first `count` images; UserError where more of these are without one than may be unreadable."""
    codes = codes.first(count)
    without = count - len(codes.rows)
    if without > bad * len(dataset):
        too_many, remedy = f"more than data.max_bad_fraction={bad} allows", "raise the limit"
    elif without == count:
        too_many, remedy = "which leaves none", "ask for more"
    else:
        return codes
    raise UserError(
        f"{without:,} of {count:,} images of '{dataset.source.path}' cannot be read, {too_many}: list them with "
        f"--task=inspect_data, mend them or {remedy}."
    )


def _encode_in_parts(folder: epath.Path, identity: Identity, count: int, encode: Callable[[range], Arrays]) -> Arrays:
    """What `encode` makes of the images 0 .. count - 1, by parts in files; those that are there are not redone.

    The last one may be there with more.
    """
    made(folder)
    parts = {_part(folder, start): range(start, min(start + PART, count)) for start in range(0, count, PART)}
    reasons: set[str] = set()
    for path in list(parts)[hosts.index() :: hosts.count()]:
        own = identity.of_part(parts[path])
        kept, why = _code_files.fresh(path, own)
        if kept is None:
            reasons |= {why} - {""}
            write_arrays(path, **encode(parts[path]), **own.arrays())
    if reasons:
        log.warning("Parts of codes in %s were not used but made anew: %s.", folder, "; ".join(sorted(reasons)))
    hosts.wait_for_all("parts")
    return _joined([_code_files.read(path) for path in parts])


def _part(folder: epath.Path, start: int) -> epath.Path:
    return folder / f"{start:09d}.npz"


def _remove_parts(folder: epath.Path, identity: Identity) -> None:
    """All of them, unless an encoding of more images was stopped, which goes on with them."""
    count, of = identity.facts["count"], identity.facts["of"]
    for start in range(count - count % PART, of, PART):
        beyond = identity.of_part(range(start, max(start, count) + 1))
        if count < of and _code_files.fresh(_part(folder, start), beyond)[0] is not None:
            return
    folder.rmtree()


def _joined(parts: list[Arrays]) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts]) for name in ("codes", "rows")}


def _codes(arrays: Arrays, dataset: data.ImageDataset, identity: Identity) -> Codes:
    """Codes and the numbers of their images, with the labels that the data set has for these."""
    rows = arrays["rows"]
    known = [dataset.labels_of(int(row)) for row in rows] if dataset.class_names or dataset.attribute_names else []
    label = np.array([labels["label"] for labels in known]) if known and dataset.class_names else None
    values = np.stack([labels["attributes"] for labels in known]) if known and dataset.attribute_names else None
    codes = Codes(
        codes=arrays["codes"],
        rows=rows,
        mean=np.zeros(0),
        std=np.zeros(0),
        label=label,
        class_names=dataset.class_names,
        attributes=values,
        attribute_names=dataset.attribute_names,
        binary=dataset.binary_attributes,
        identity=identity,
    )
    return _with_moments(codes, np.ones(len(rows), bool))


def _with_moments(codes: Codes, chosen: np.ndarray) -> Codes:
    """The chosen ones, bool [n], with their own mean and deviation."""
    z = codes.codes[chosen]
    exact = z.astype(np.float64) if len(z) else np.zeros((1, z.shape[1]))
    return dataclasses.replace(
        codes,
        codes=z,
        rows=codes.rows[chosen],
        mean=exact.mean(0).astype(np.float32),
        std=exact.std(0).astype(np.float32),
        label=None if codes.label is None else codes.label[chosen],
        attributes=None if codes.attributes is None else codes.attributes[chosen],
    )


def _write_if_other(path: epath.Path, codes: Codes, dataset: data.ImageDataset, kept: Arrays) -> None:
    """Write the file, unless it is there with these very codes and labels: labels in it are those of the data set."""
    kept_identity = {name: kept[name] for name in ("facts", "fingerprint") if name in kept}
    source = dataset.source
    arrays: dict[str, Any] = {
        "codes": codes.codes,
        "rows": codes.rows,
        "mean": codes.mean,
        "std": codes.std,
        "label": codes.label,
        "class_names": codes.class_names,
        "attributes": codes.attributes,
        "attribute_names": codes.attribute_names,
        "source": codes_data.record(source),
    }
    present = {name: np.asarray(values) for name, values in arrays.items() if values is not None and len(values)}
    present |= kept_identity or codes.identity.arrays()
    other = {name for name in present.keys() | kept.keys() if not _equal(present.get(name), kept.get(name))}
    if not other or not hosts.is_first():
        return
    if kept and other.intersection(LABELS):
        log.info("The labels of the data are not those in %s: written anew there.", path)
    write_arrays(path, **present)


def _equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b)


def statistics(path: epath.Path, model: Model, remedy: str) -> Arrays:
    """Mean, deviation and fingerprint in a file of codes; UserError, with the remedy, for those of another network."""
    try:
        arrays = _code_files.read(path)
        known = {name: arrays[name] for name in ("mean", "std", "fingerprint")}
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no file of codes that can be read ({error}): {remedy}") from None
    if not same_network(known["fingerprint"], model.fingerprint()):
        raise UserError(f"{path} has the codes of another network, or of an earlier state of this one: {remedy}")
    codes_data.warn_of_other_images(pathlib.Path(path), arrays.get("source"))
    return known
