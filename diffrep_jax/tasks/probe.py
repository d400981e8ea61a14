"""How much a code tells: a linear head on frozen codes, for classes (AP) and attributes (AP, or Pearson's r and MSE).

The protocol of DiffAE and DBAE: images are encoded once, a linear layer is trained with Adam on BCE (what an image has
or lacks, and classes one against the rest) or MSE (measures). The epoch that is best on validation images is the
result; `official` is the epoch that is best on the test images, which is what the official regression reports.

Writes to `<workdir>/probe/`: <part>_<dataset>.npz (a `readout.head.Head`), metrics.json and the same as
metrics_<dataset>.json.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
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
from diffrep_jax.readout.linear import Fit, fit
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

    def run(self, model: Model, run: Run) -> dict[str, float]:
        """Encode, train the heads, judge them; the numbers are means over attributes."""
        train = self._open(run, "train")
        datasets = {"train": train} | {split: self._open(run, split) for split in train.splits if split in JUDGES}
        if np.intersect1d(train.entries, datasets["test"].entries).size:
            del datasets["test"]  # a head would be judged on what it was taught: CelebA-HQ's only split is all of it
        codes = {
            split: _codes.codes_of(model, dataset, run, self.num_images, self.encode_batch_size)
            for split, dataset in datasets.items()
        }
        splits = {split: _targets(values) for split, values in codes.items()}
        splits |= _held_out(splits, self.seed)
        held_out = {split: share for split, share in HELD_OUT.items() if split not in datasets}
        numbers: dict[str, float] = {}
        report: dict[str, Any] = {"dataset": train.name, "images": {name: len(s.codes) for name, s in splits.items()}}
        for part, names in _names(train).items():
            kind = "bce" if part == "classes" or train.binary_attributes else "mse"
            result, kernel, bias = self._part(part, kind, splits, names)
            _heads.save(run, part, _head(names, kernel, bias, kind, train.name, codes["train"]))
            report[part] = result
            numbers |= {f"{part}_{measure}": value for measure, value in result["mean"].items()}
        how = _codes.encoding(model) | {"held_out": held_out, "epochs": self.epochs, "lr": self.lr, "seed": self.seed}
        for name in (NUMBERS, f"metrics_{train.name}.json"):  # the second one stays when others are probed
            run.write_numbers("probe", numbers | report | how, name)
        return numbers

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
        centre, scale = (targets.mean(0), targets.std(0) + 1e-12) if kind == "mse" else (0.0, 1.0)
        batch_size = min(self.batch_size if kind == "bce" else self.regression_batch_size, len(targets))
        codes, values = jnp.asarray(splits["train"].codes), jnp.asarray((targets - centre) / scale)
        heads = fit(codes, values, jax.random.key(self.seed), Fit(kind, self.epochs, batch_size, self.lr))
        kernels, biases = np.asarray(heads.kernel) * scale, np.asarray(heads.bias) * scale + centre

        def judge(split: str, epoch: int) -> dict[str, np.ndarray]:
            return _judge(kind, splits[split].codes @ kernels[epoch] + biases[epoch], splits[split].targets[part])

        chosen = _best([judge("validation", epoch) for epoch in range(self.epochs)])
        tested = [judge("test", epoch) for epoch in range(self.epochs)]
        official = _best(tested)
        result = {
            "mean": _means(tested[chosen]),
            "epoch": chosen + 1,
            "official": {"mean": _means(tested[official]), "epoch": official + 1},
            "each": {m: dict(zip(names, v.tolist(), strict=True)) for m, v in tested[chosen].items()},
        }
        measures = ", ".join(f"{measure} {value:.4f}" for measure, value in result["mean"].items())
        log.info("%s: %s over %d, head of epoch %d of %d.", part, measures, len(names), chosen + 1, self.epochs)
        return result, kernels[chosen], biases[chosen]


def _head(names: tuple[str, ...], kernel: np.ndarray, bias: np.ndarray, kind: str, dataset: str, codes: Codes) -> Head:
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
    )


def _held_out(splits: Mapping[str, Split], seed: int) -> dict[str, Split]:
    """The splits that are lacking, taken from the training images at random, and what is left of these."""
    train, taken = splits["train"], {}
    rest = np.random.default_rng(seed).permutation(len(train.codes))
    for split, share in HELD_OUT.items():
        if split not in splits:
            cut = max(1, round(share * len(train.codes)))
            taken[split], rest = train.rows(rest[:cut]), rest[cut:]
    return taken | {"train": train.rows(rest)} if taken else {}


def _targets(codes: Codes) -> Split:
    """What a head is taught: classes one against the rest, attributes as they are."""
    targets = {}
    if codes.label is not None:
        targets["classes"] = np.eye(len(codes.class_names), dtype=np.float32)[codes.label]
    if codes.attributes is not None:
        targets["attributes"] = codes.attributes
    return Split(codes.codes, targets)


def _names(dataset: data.ImageDataset) -> dict[str, tuple[str, ...]]:
    """{part: the names of its columns} of what the data set has."""
    parts = {"classes": dataset.class_names, "attributes": dataset.attribute_names}
    return {part: tuple(names) for part, names in parts.items() if names}


def _judge(kind: str, outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """{measure: one value an attribute}, NaN where the images cannot tell."""
    if kind == "bce":
        values = metrics.average_precision(outputs, targets)
        return {"ap": np.where(metrics.has_positives(targets), values, np.nan)}
    return {"r": metrics.pearson(outputs, targets), "mse": metrics.squared_error(outputs, targets)}


def _means(measures: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: float(np.nanmean(values)) for name, values in measures.items()}


def _best(judged: list[dict[str, np.ndarray]]) -> int:
    """The epoch with the highest mean of the first measure."""
    return int(np.argmax([next(iter(_means(measures).values())) for measures in judged]))


Task = Probe
