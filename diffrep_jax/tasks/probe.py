"""How much a code tells: a linear head on frozen codes, for classes (AP) and attributes (AP, or Pearson's r and MSE).

The protocol of DiffAE and DBAE: images are encoded once, a linear layer is trained with Adam on BCE (what an image has
or lacks, and classes one against the rest) or MSE (measures). The epoch that is best on validation images is the
result; `official` is the epoch that is best on the test images, which is what the official regression reports.

Writes to `<workdir>/probe/`: <part>.npz (the head: kernel [d, k], bias [k], names), metrics.json and the same as
metrics_<dataset>.json.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import probe as metrics
from diffrep_jax.tasks import base
from diffrep_jax.tasks.encode import Codes, check_encoding, codes_of, open_labelled
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import Array, Code, PyTree

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

    needs_run = True

    every_steps: int
    dataset: str
    epochs: int
    lr: float
    batch_size: int
    regression_batch_size: int
    encode_batch_size: int
    num_images: int
    seed: int
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        for field in ("epochs", "batch_size", "regression_batch_size"):
            if getattr(self, field) < 1:
                raise UserError(f"tasks.probe.{field} {getattr(self, field)} must be at least 1.")
        check_encoding("probe", self.dataset, self.num_images, self.encode_batch_size)

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        """Encode, train the heads, judge them; the numbers are means over attributes."""
        model = Inference(method, variables, mesh_of(variables))
        train = self._open(config, "train")
        names = _names(train)
        kinds = {"classes": "bce", "attributes": "bce" if train.binary_attributes else "mse"}
        datasets = {"train": train} | {split: self._open(config, split) for split in train.splits if split in JUDGES}
        if np.intersect1d(train.entries, datasets["test"].entries).size:
            del datasets["test"]  # a head would be judged on what it was taught: CelebA-HQ's only split is all of it
        splits = {
            split: _targets(codes_of(model, dataset, config, workdir, self.num_images, self.encode_batch_size))
            for split, dataset in datasets.items()
        }
        splits |= _held_out(splits, self.seed)
        held_out = {split: share for split, share in HELD_OUT.items() if split not in datasets}
        folder = base.output_folder(workdir, "probe")
        numbers, report = {}, {"dataset": train.name, "images": {name: len(s.codes) for name, s in splits.items()}}
        for part, attributes in names.items():
            found = self._part(part, kinds[part], splits, attributes, folder)
            report[part] = found
            numbers |= {f"{part}_{measure}": value for measure, value in found["mean"].items()}
        how = {"held_out": held_out, "epochs": self.epochs, "lr": self.lr, "seed": self.seed}
        base.write_metrics(folder, numbers | report | how)
        base.write_metrics(folder, numbers | report | how, f"metrics_{train.name}.json")  # stays when others are probed
        return numbers

    def _open(self, config: Any, split: str) -> Any:
        """The data set with all labels that it has; UserError where there are none."""
        dataset = open_labelled(config, self.dataset, split, self.data_dir)
        if not dataset.class_names and not dataset.attribute_names:
            raise UserError(
                f"The data set '{dataset.name}' has no labels to probe for: {dataset.attributes_from} "
                "Or set tasks.probe.dataset to one that has."
            )
        return dataset

    def _part(
        self, part: str, kind: str, splits: Mapping[str, Split], names: tuple[str, ...], folder: pathlib.Path
    ) -> dict[str, Any]:
        """Train the head of one part and judge each of its epochs; the best one's head is saved."""
        targets = splits["train"].targets[part]
        # Measures are learned at unit scale and told in their own.
        centre, scale = (targets.mean(0), targets.std(0) + 1e-12) if kind == "mse" else (0.0, 1.0)
        batch_size = self.batch_size if kind == "bce" else self.regression_batch_size
        heads = fit(
            jnp.asarray(splits["train"].codes),
            jnp.asarray((targets - centre) / scale),
            jax.random.key(self.seed),
            kind=kind,
            epochs=self.epochs,
            batch_size=min(batch_size, len(targets)),
            lr=self.lr,
        )
        heads = {"kernel": np.asarray(heads["kernel"]) * scale, "bias": np.asarray(heads["bias"]) * scale + centre}

        def judge(split: str, epoch: int) -> dict[str, np.ndarray]:
            outputs = splits[split].codes @ heads["kernel"][epoch] + heads["bias"][epoch]
            return _judge(kind, outputs, splits[split].targets[part])

        chosen = _best([judge("validation", epoch) for epoch in range(self.epochs)])
        tested = [judge("test", epoch) for epoch in range(self.epochs)]
        official = _best(tested)
        np.savez(
            folder / f"{part}.npz", kernel=heads["kernel"][chosen], bias=heads["bias"][chosen], names=np.array(names)
        )
        result = {
            "mean": _means(tested[chosen]),
            "epoch": chosen + 1,
            "official": {"mean": _means(tested[official]), "epoch": official + 1},
            "each": {m: dict(zip(names, v.tolist(), strict=True)) for m, v in tested[chosen].items()},
        }
        log.info(
            "%s: %s over %d, head of epoch %d of %d.",
            part,
            ", ".join(f"{measure} {value:.4f}" for measure, value in result["mean"].items()),
            *(len(names), chosen + 1, self.epochs),
        )
        return result


def _held_out(splits: Mapping[str, Split], seed: int) -> dict[str, Split]:
    """The splits that are lacking, taken from the training images at random, and what is left of these."""
    train, found = splits["train"], {}
    rest = np.random.default_rng(seed).permutation(len(train.codes))
    for split, share in HELD_OUT.items():
        if split not in splits:
            cut = max(1, round(share * len(train.codes)))
            found[split], rest = train.rows(rest[:cut]), rest[cut:]
    return found | {"train": train.rows(rest)} if found else {}


def _targets(codes: Codes) -> Split:
    """What a head is taught: classes one against the rest, attributes as they are."""
    targets = {}
    if codes.label is not None:
        targets["classes"] = np.eye(len(codes.class_names), dtype=np.float32)[codes.label]
    if codes.attributes is not None:
        targets["attributes"] = codes.attributes
    return Split(codes.codes, targets)


def _names(dataset: Any) -> dict[str, tuple[str, ...]]:
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


@functools.partial(jax.jit, static_argnames=("kind", "epochs", "batch_size", "lr"))
def fit(
    codes: Code, targets: Array, key: Array, *, kind: str, epochs: int, batch_size: int, lr: float
) -> dict[str, Array]:
    """The linear head after each epoch: {"kernel": [epochs, d, k], "bias": [epochs, k]}; one compiled call.

    codes [n, d], targets [n, k]; kind: "bce" or "mse", the mean over examples and attributes; each epoch sees all
    examples in a fresh order, its last batch being short. The start is PyTorch's, U(-1/sqrt(d), 1/sqrt(d)).
    """
    n, dimensions = codes.shape
    steps = -(-n // batch_size)
    optimizer = optax.adam(lr)
    losses = {"bce": optax.sigmoid_binary_cross_entropy, "mse": optax.squared_error}
    key_start, key_order = jax.random.split(key)
    bound = dimensions**-0.5
    start = jax.random.uniform(key_start, (dimensions + 1, targets.shape[1]), minval=-bound, maxval=bound)
    head = {"kernel": start[:-1], "bias": start[-1]}

    def loss(head: PyTree, rows: Array) -> Array:
        weights = (rows < n).astype(codes.dtype)  # n stands for "none" in the last batch
        rows = jnp.minimum(rows, n - 1)
        errors = losses[kind](codes[rows] @ head["kernel"] + head["bias"], targets[rows]).mean(1)
        return (weights * errors).sum() / weights.sum()

    def step(carry: Any, rows: Array) -> tuple[Any, None]:
        head, state = carry
        updates, state = optimizer.update(jax.grad(loss)(head, rows), state)
        return (optax.apply_updates(head, updates), state), None

    def epoch(carry: Any, key: Array) -> tuple[Any, PyTree]:
        order = jax.random.permutation(key, n)
        rows = jnp.concatenate([order, jnp.full(steps * batch_size - n, n)]).reshape(steps, batch_size)
        carry, _ = jax.lax.scan(step, carry, rows)
        return carry, carry[0]

    _, heads = jax.lax.scan(epoch, (head, optimizer.init(head)), jax.random.split(key_order, epochs))
    return heads


Task = Probe
