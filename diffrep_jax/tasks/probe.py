"""How much a code tells: a linear head on frozen codes, for classes (AP) and attributes (AP, or Pearson's r and MSE).

The protocol of DiffAE and DBAE: images are encoded once, a linear layer is trained with Adam on BCE (what an image has
or lacks, and classes one against the rest) or MSE (measures). The epoch that is best on validation images is the
result. `official` are heads as the papers' released code trains them: on all training images, those that are held out
for validation too, mirrored at random where the run's own training mirrors them, in the data set's order, on measures
in their own units; of these the epoch that is best on the test images, as the official regression picks it.

Writes to `<workdir>/probe/`: <part>_<dataset>.npz (a `readout.head.Head`), metrics.json and the same as
metrics_<dataset>.json.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.fields import Positive, check_numbers
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import probe as metrics
from diffrep_jax.readout.head import Head
from diffrep_jax.readout.linear import Fit, at_unit_scale, fit
from diffrep_jax.runs.layout import NUMBERS, Run
from diffrep_jax.tasks import _codes, _heads, base
from diffrep_jax.tasks._codes import Codes

log = logging.getLogger(__name__)

JUDGES = ("validation", "test")  # the splits that are not trained on
HELD_OUT = {"test": 0.2, "validation": 0.1}  # shares of the training images, where a data set lacks such a split


@dataclasses.dataclass(frozen=True)
class Split:
    """Codes [n, d] and, by part ("classes", "attributes"), targets [n, k]."""

    codes: np.ndarray
    targets: Mapping[str, np.ndarray]

    def rows(self, rows: np.ndarray) -> "Split":
        return Split(self.codes[rows], {part: values[rows] for part, values in self.targets.items()})


@dataclasses.dataclass(frozen=True)
class Probe:
    """The fields of `config.tasks.probe`.

    Attributes:
      dataset: a data set with labels; "" for the run's own.
      epochs, lr: of the head; batch_size, regression_batch_size: of its steps on BCE and on MSE.
      encode_batch_size: images at a time.
      num_images: how many of each split, the first ones; -1 for all.
      seed: of the head's start, the order of the images and the choice of those that are held out.
    """

    needs_run: ClassVar[bool] = True

    every_steps: int = 0
    dataset: str = ""
    epochs: int = 15
    lr: Positive = 1e-3
    batch_size: int = 128
    regression_batch_size: int = 64
    encode_batch_size: int = 64
    num_images: int = -1
    seed: int = 0
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        least = {"every_steps": 0, "epochs": 1, "batch_size": 1, "regression_batch_size": 1, "seed": 0}
        check_numbers(self, "tasks.probe", least)
        base.check_encoding("probe", self.dataset, self.num_images, self.encode_batch_size)

    def check(self, model: Model, run: Run) -> None:
        """As `base.Task.check`."""
        model.check_encoded()
        self._datasets(run)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        """Encode, train the heads, judge them; the numbers are means over attributes."""
        datasets = self._datasets(run)
        train = datasets["train"]
        codes = {
            split: _codes.codes_of(model, dataset, run, self.num_images, self.encode_batch_size)
            for split, dataset in datasets.items()
        }
        splits = {split: _targets(values) for split, values in codes.items()}
        whole, rows = splits["train"], _held_out(splits, train.name, self.seed)
        splits |= {split: whole.rows(taken) for split, taken in rows.items()}
        taught = np.setdiff1d(np.arange(len(whole.codes)), rows.get("test", []))
        official = _Official(whole, taught, self._mirrored(model, train, run))
        held_out = {split: share for split, share in HELD_OUT.items() if split not in datasets}
        numbers: dict[str, float] = {}
        heads: dict[str, Head] = {}
        report: dict[str, Any] = {"dataset": train.name, "images": {name: len(s.codes) for name, s in splits.items()}}
        for part, (kind, names) in _parts(train).items():
            result, kernel, bias = self._part(part, kind, splits, names)
            result["official"] = self._as_published(part, kind, official, splits["test"])
            heads[part] = _head(names, kernel, bias, kind, train.name, codes["train"], whole.targets[part])
            report[part] = result
            numbers |= {f"{part}_{measure}": value for measure, value in result["mean"].items()}
        _heads.save(run, heads)  # all or none: one may be refused
        how = _codes.encoding(model) | {"held_out": held_out, "epochs": self.epochs, "lr": self.lr, "seed": self.seed}
        how["official_images"] = {"train": len(taught), "mirrored": official.mirrored is not None}
        for name in (NUMBERS, f"metrics_{train.name}.json"):  # the second one stays when others are probed
            run.write_numbers("probe", numbers | report | how, name)
        return numbers

    def _datasets(self, run: Run) -> dict[str, data.ImageDataset]:
        """{split: those of its images}, without a test split that shares images with the training split.

        Raises UserError where there are fewer images than asked for, or none to learn from beside those held out.
        """
        train = self._open(run, "train")
        datasets = {"train": train} | {split: self._open(run, split) for split in train.splits if split in JUDGES}
        if _overlap(train, datasets["test"]):
            del datasets["test"]  # a head would be judged on what it was taught: CelebA-HQ's only split is all of it
        counts = {split: _codes.check_count(dataset, self.num_images) for split, dataset in datasets.items()}
        _sizes_held_out(counts["train"], datasets, train.name)
        return datasets

    def _open(self, run: Run, split: str) -> data.ImageDataset:
        """The data set with all labels that it has; UserError where there are none."""
        dataset = _codes.open_labelled(run.config, self.dataset, split, self.data_dir)
        if not dataset.class_names and not dataset.attribute_names:
            raise UserError(
                f"The data set '{dataset.name}' has no labels to probe for: {dataset.attributes_from} "
                "Or set tasks.probe.dataset to one that has."
            )
        return dataset

    def _part(
        self, part: str, kind: str, splits: Mapping[str, Split], names: tuple[str, ...]
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Train the head of one part and judge each of its epochs: (for metrics.json, best kernel, its bias)."""
        targets = splits["train"].targets[part]
        # Measures are learned at unit scale and reported in their own.
        values, centre, scale = at_unit_scale(targets) if kind == "mse" else (targets, 0.0, 1.0)
        codes = jnp.asarray(splits["train"].codes)
        heads = fit(codes, jnp.asarray(values), jax.random.key(self.seed), self._fit(kind, len(targets)))
        kernels, biases = np.asarray(heads.kernel) * scale, np.asarray(heads.bias) * scale + centre

        def judge(split: str, epoch: int) -> dict[str, np.ndarray]:
            return _judge(kind, splits[split].codes @ kernels[epoch] + biases[epoch], splits[split].targets[part])

        chosen = _best([judge("validation", epoch) for epoch in range(self.epochs)])
        tested = judge("test", chosen)
        result = {
            "mean": _means(tested),
            "epoch": chosen + 1,
            "each": {m: dict(zip(names, v.tolist(), strict=True)) for m, v in tested.items()},
        }
        judged = {measure: int(np.isfinite(values).sum()) for measure, values in tested.items()}
        measures = ", ".join(f"{m} {value:.4f} over {judged[m]}" for m, value in result["mean"].items())
        log.info("%s: %s of %d, head of epoch %d of %d.", part, measures, len(names), chosen + 1, self.epochs)
        return result, kernels[chosen], biases[chosen]

    def _fit(self, kind: str, count: int, shuffled: bool = True) -> Fit:
        batch_size = min(self.batch_size if kind == "bce" else self.regression_batch_size, count)
        return Fit(kind, self.epochs, batch_size, self.lr, shuffled=shuffled)

    def _as_published(self, part: str, kind: str, official: "_Official", test: Split) -> dict[str, Any]:
        """The numbers of heads that are trained as the papers' released code trains them."""
        train = official.whole.rows(official.taught)
        mirrored = None if official.mirrored is None else jnp.asarray(official.mirrored[official.taught])
        how = self._fit(kind, len(train.codes), shuffled=False)
        codes, values = jnp.asarray(train.codes), jnp.asarray(train.targets[part])
        heads = fit(codes, values, jax.random.key(self.seed), how, mirrored)
        kernels, biases = np.asarray(heads.kernel), np.asarray(heads.bias)
        tested = [
            _judge(kind, test.codes @ kernel + bias, test.targets[part])
            for kernel, bias in zip(kernels, biases, strict=True)
        ]
        best = _best(tested)
        return {"mean": _means(tested[best]), "epoch": best + 1}

    def _mirrored(self, model: Model, train: data.ImageDataset, run: Run) -> np.ndarray | None:
        """The codes of the mirrored training images; None where the run's training does not mirror, as of digits."""
        section = run.config.data
        if not section.flip:
            return None
        count = len(train) if self.num_images == -1 else self.num_images
        size = min(self.encode_batch_size, count)
        batches = data.ordered_batches(
            train, batch_size=size, num_images=count, max_bad_fraction=section.max_bad_fraction
        )
        parts, first = [], 0
        for batch in base.progress(batches, -(-count // size), "encode mirrored images"):
            parts.append(model.encode(np.ascontiguousarray(batch["image"][:, :, ::-1]), numbers=first))
            first += len(parts[-1])
        return np.concatenate(parts)


@dataclasses.dataclass(frozen=True)
class _Official:
    """whole: all training images; taught: the rows of them that heads are taught; mirrored: their codes mirrored."""

    whole: Split
    taught: np.ndarray
    mirrored: np.ndarray | None


def _head(
    names: tuple[str, ...],
    kernel: np.ndarray,
    bias: np.ndarray,
    kind: str,
    dataset: str,
    codes: Codes,
    targets: np.ndarray,
) -> Head:
    """Of these codes, [n, d], and targets [n, k]."""
    return Head(
        names=names,
        kernel=kernel,
        bias=bias,
        kind=kind,
        dataset=dataset,
        trained_by="probe",
        mean=codes.mean,
        std=np.where(codes.std > 0, codes.std, 1),
        fingerprint=codes.fingerprint,
        trained_on=tuple(map(codes.target_fingerprint, targets.T)),
    )


def _overlap(one: data.ImageDataset, other: data.ImageDataset) -> bool:
    """Whether some image is in both: an entry's number says which image it is within one source alone."""
    same_source = one.source.fingerprint() == other.source.fingerprint()
    return same_source and np.intersect1d(one.entries, other.entries).size > 0


def _sizes_held_out(count: int, splits: Iterable[str], dataset: str) -> dict[str, int]:
    """{split: how many of `count` training images it takes}, of those lacking; UserError where that is all of them."""
    sizes = {split: max(1, round(share * count)) for split, share in HELD_OUT.items() if split not in set(splits)}
    if sum(sizes.values()) >= count:
        raise UserError(
            f"tasks.probe has {count} training images of '{dataset}' and holds {' and '.join(sizes)} images out of "
            f"them: none is left to learn from. Give it {len(sizes) + 1} or more."
        )
    return sizes


def _held_out(splits: Mapping[str, Split], dataset: str, seed: int) -> dict[str, np.ndarray]:
    """{split: the rows of the training images that it takes, at random}, of those lacking, and "train": the others."""
    count, taken = len(splits["train"].codes), {}
    rest = np.random.default_rng(seed).permutation(count)
    for split, size in _sizes_held_out(count, splits, dataset).items():
        taken[split], rest = rest[:size], rest[size:]
    return taken | {"train": rest} if taken else {}


def _targets(codes: Codes) -> Split:
    """What a head is taught: classes one against the rest, attributes as they are."""
    targets = {}
    if codes.label is not None:
        targets["classes"] = np.eye(len(codes.class_names), dtype=np.float32)[codes.label]
    if codes.attributes is not None:
        targets |= {part: codes.attributes[:, columns] for part, columns in _columns(codes.binary).items()}
    return Split(codes.codes, targets)


def _columns(binary: tuple[bool, ...]) -> dict[str, np.ndarray]:
    """{part: the columns of attributes in it}: measures are a part of their own where others are had or lacked."""
    has = np.array(binary, bool)
    if has.all() or not has.any():
        return {"attributes": np.arange(len(has))} if len(has) else {}
    return {"attributes": np.flatnonzero(has), "measures": np.flatnonzero(~has)}


def _parts(dataset: data.ImageDataset) -> dict[str, tuple[str, tuple[str, ...]]]:
    """{part: (what its head is trained with, see `readout.head.KINDS`; its names)} of what a data set has."""
    parts = {"classes": ("bce", tuple(dataset.class_names))} if dataset.class_names else {}
    for part, columns in _columns(dataset.binary_attributes).items():
        kind = "bce" if dataset.binary_attributes[columns[0]] else "mse"
        parts[part] = kind, tuple(dataset.attribute_names[i] for i in columns)
    return parts


def _judge(kind: str, outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """{measure: one value an attribute}, NaN where the images cannot tell."""
    if kind == "bce":
        return {"ap": metrics.average_precision(outputs, targets)}
    return {"r": metrics.pearson(outputs, targets), "mse": metrics.squared_error(outputs, targets)}


def _means(measures: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: metrics.mean(values) for name, values in measures.items()}


def _best(judged: list[dict[str, np.ndarray]]) -> int:
    """The epoch with the highest mean of the first measure; the last one where the images tell none."""
    means = np.array([next(iter(_means(measures).values())) for measures in judged])
    return len(means) - 1 if np.isnan(means).all() else int(np.nanargmax(means))


Task = Probe
