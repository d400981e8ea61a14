"""How good a run is: its reconstructions by sampler and number of evaluations, its samples, its codes.

MSE, PSNR, SSIM, LPIPS and rFID of the run's reconstructions, or of images that lie in files; FID of generated images
and of interpolations against the training images; TAD, ATTRS and DCI of the codes. Images are taken batch by batch,
sums and moments are all that is kept. Writes `<workdir>/evaluate/metrics.json`.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from diffrep_jax import data
from diffrep_jax.data import image_sets
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.tasks import _disentangle, base
from diffrep_jax.tasks._measures import Features, Networks, Pairs, Row, compare, filled, line, load_networks, plotted
from diffrep_jax.tasks.encode import codes_of, open_labelled
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

VARIED = ("sampler", "grid", "steps", "churn_step_ratio", "eta", "invert_steps")
SAMPLES = "sample/samples.npz"  # of the run, looked at if it is there


@dataclasses.dataclass(frozen=True)
class Evaluate(base.ImageTask):
    """The fields of `config.tasks.evaluate`.

    Attributes:
      dataset: "" for the run's own; num_images: of its split, the first ones, -1 for all, 0 for no reconstructions.
      rows: one line of the report each: a number of steps, or {field: value} of what differs from the section, such as
        {"steps": 100, "churn_step_ratio": 0.33}; () for one line as the section says.
      lpips, fid: whether, where there are weights.
      interpolate_at: also the FID of images between each image and the next, so far on the way in (0, 1); 0 for none.
      reconstructions: images in place of the run's own reconstructions, a folder, zip, LMDB or .npz; "" for none.
      reference: what they are compared with, in the same order; "" for the split.
      generated: images whose FID is wanted, likewise; () for the run's sample/samples.npz, if it is there.
      disentanglement_images: how many training images TAD and ATTRS see, the first ones, -1 for all; dci_images: how
        many of these DCI sees; 0 for none.
      attributes: the names of those that the codes are held against; () for all.
    """

    dataset: str
    num_images: int
    rows: tuple[Any, ...]
    lpips: bool
    fid: bool
    interpolate_at: float
    reference: str
    reconstructions: str
    generated: tuple[str, ...]
    disentanglement_images: int
    dci_images: int
    attributes: tuple[str, ...]
    weights_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        super().__post_init__()
        if self.num_images < -1:
            raise UserError(f"tasks.evaluate.num_images {self.num_images} must be at least 0, or -1 for all.")
        if self.dataset and self.dataset not in data.dataset_names():
            raise unknown("data set", self.dataset, data.dataset_names(), "tasks.evaluate.dataset")
        if not 0 <= self.interpolate_at < 1:
            raise UserError(f"tasks.evaluate.interpolate_at {self.interpolate_at} is outside [0, 1); 0 is for none.")
        if self.reference and not self.reconstructions:
            raise UserError(f"tasks.evaluate.reference '{self.reference}' needs tasks.evaluate.reconstructions too.")
        if self.disentanglement_images < -1:
            count = self.disentanglement_images
            raise UserError(f"tasks.evaluate.disentanglement_images {count} must be at least 0, or -1 for all.")
        if self.dci_images < 0 or self.dci_images > self.disentanglement_images != -1:
            raise UserError(f"tasks.evaluate.dci_images {self.dci_images} must be 0 to disentanglement_images.")
        self.settings()

    def settings(self) -> list[base.ImageTask]:
        """The task of each row."""
        return [self._setting(row) for row in self.rows] if self.rows else [self]

    def _setting(self, row: Any) -> base.ImageTask:
        fields = {"steps": row} if isinstance(row, int) else row
        if not isinstance(fields, Mapping | ConfigDict):
            raise UserError(
                f"The row {row!r} of tasks.evaluate.rows is neither a number of steps nor {{field: value}}."
            )
        for field, value in fields.items():
            if field not in VARIED:
                raise unknown("field", field, VARIED, "tasks.evaluate.rows")
            usual = getattr(self, field)
            if not isinstance(value, (int, float) if isinstance(usual, float) else type(usual)):
                raise UserError(f"{field} {value!r} in tasks.evaluate.rows: expected {type(usual).__name__}.")
        return dataclasses.replace(self, rows=(), **fields)

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        """Measure all that is asked for; the numbers are those of the first row."""
        model = Inference(method, variables, mesh_of(variables))
        originals, sets = self._originals(config), self._generated(workdir)
        networks = load_networks({"lpips": self.lpips, "fid": self.fid}, self.weights_dir, originals.size)
        codes = self._codes(model, config, workdir)
        training = self._training(config, networks) if networks.inception and (sets or self.interpolate_at) else None
        if self.num_images == 0:
            rows = []
        elif self.reconstructions:
            rows = [self._compare(config, networks, originals)]
        else:
            rows = self._decode(model, config, networks, originals, training if self.interpolate_at else None)
        report: dict[str, Any] = {"rows": rows, "missing": dict(networks.missing)}
        if sets and training is not None:
            report["generated"] = [self._fid_of(images, networks, training, config) for images in sets]
        if codes is not None:
            report["disentanglement"] = _disentangle.measure(*codes, trees=self.dci_images)
        folder = base.output_folder(workdir, "evaluate")
        base.write_metrics(folder, report)
        log.info("%s", folder / "metrics.json")
        return plotted(report)

    def _batches(self, config: Any, dataset: Any, count: int, what: str) -> Iterator[np.ndarray]:
        """Images in [-1, 1]."""
        bad = config.data.max_bad_fraction
        found = data.ordered_batches(dataset, batch_size=self.batch_size, num_images=count, max_bad_fraction=bad)
        for batch in base.progress(found, -(-count // self.batch_size), what):
            yield batch["image"]

    def _originals(self, config: Any) -> "_Originals":
        """What is reconstructed; UserError where there are fewer images than asked for."""
        if self.reference:
            images = image_sets.open_images(pathlib.Path(self.reference), ("images", "reconstructions"))
            name, split, place = self.reference, None, self.reference
            size = min(next(images.images())[1].shape[:2]) if len(images) else 0
        else:
            images = base.open_dataset(config, self.split, self.data_dir, self.dataset)
            name, split, place = images.name, self.split, f"split '{self.split}' of '{images.name}'"
            size = config.data.image_size
        if self.num_images > len(images):
            raise UserError(f"tasks.evaluate.num_images {self.num_images}: {place} has {len(images)}; ask less.")
        return _Originals(images, name, split, len(images) if self.num_images == -1 else self.num_images, size)

    def _decode(
        self, model: Inference, config: Any, networks: Networks, originals: "_Originals", training: Features | None
    ) -> list[dict[str, Any]]:
        """Reconstruct the split with the sampler of each row."""
        count = originals.count
        rows = [Row(task, Pairs(networks), Features(networks)) for task in self.settings()]
        real, size, first = Features(networks), min(self.batch_size, count), 0
        for x0 in self._batches(config, originals.images, count, "evaluate"):
            pixels, encoded = to_uint8(x0), {}
            real.update(pixels)
            for row in rows:
                how = (row.task.invert_steps, row.task.invert_steps and row.task.grid)  # what the codes depend on
                if how not in encoded:
                    encoded[how] = row.task.encode(model, filled(x0, size), first)
                row.reconstruct(model, encoded[how], pixels, first)
                if training is not None:
                    row.interpolate(model, encoded[how], len(x0), first, self.interpolate_at)
            first += len(x0)
        return [self._told(row, model.method, originals.name, real, training) for row in rows]

    def _told(self, row: Row, method: Any, dataset: str, real: Features, training: Features | None) -> dict[str, Any]:
        """The row for metrics.json, and the log."""
        told = row.task.description(method) | {"images": row.pairs.count, "dataset": dataset, "split": self.split}
        told |= {"seconds": row.seconds()} | row.pairs.numbers(real)
        if training is not None:
            told |= {"interpolate_at": self.interpolate_at, "fid_interpolation": row.between.distance(training)}
        log.info("%s", line(told))
        return told

    def _compare(self, config: Any, networks: Networks, originals: "_Originals") -> dict[str, Any]:
        """Images in files against others, or against the split."""
        made = image_sets.open_images(pathlib.Path(self.reconstructions), ("reconstructions", "images"))
        count = originals.count
        if len(made) < count or (self.num_images == -1 and len(made) > count):
            counts = f"{self.reconstructions} has {len(made)} images, {originals.name} {count}"
            raise UserError(f"{counts}: each needs its partner; set tasks.evaluate.num_images.")
        if self.reference:
            given = image_sets.batches(originals.images, self.batch_size, count)
        else:
            given = map(to_uint8, self._batches(config, originals.images, count, "evaluate"))
        pairs, real = compare(given, image_sets.batches(made, self.batch_size, count), networks)
        if pairs.count != count:  # an unreadable image was left out: those after it have no partner
            raise UserError(
                f"Only {pairs.count} of the {count} images of {originals.name} can be read; mend the others."
            )
        row = {**dict.fromkeys((*VARIED, "evaluations", "seed")), "reconstructions": self.reconstructions}
        row |= {"images": count, "dataset": originals.name, "split": originals.split, "seconds": None}
        row |= pairs.numbers(real)
        log.info("%s", line(row))
        return row

    def _training(self, config: Any, networks: Networks) -> Features:
        """The features of all images that the run was trained on."""
        dataset = base.open_dataset(config, config.data.split, self.data_dir)
        features = Features(networks)
        for x0 in self._batches(config, dataset, len(dataset), "training images"):
            features.update(to_uint8(x0))
        return features

    def _generated(self, workdir: pathlib.Path) -> list[image_sets.ImageSet]:
        usual = workdir / SAMPLES
        paths = [pathlib.Path(path) for path in self.generated] or ([usual] if usual.is_file() else [])
        return [image_sets.open_images(path, ("samples", "images")) for path in paths]

    def _fid_of(
        self, images: image_sets.ImageSet, networks: Networks, training: Features, config: Any
    ) -> dict[str, Any]:
        features = Features(networks)
        parts = image_sets.batches(images, self.batch_size, len(images))
        for batch in base.progress(parts, -(-len(images) // self.batch_size), "generated images"):
            features.update(batch)
        found = {"path": str(images.path), "images": len(images), "fid": features.distance(training)}
        log.info("%s: FID %.3f of %d images", images.path, found["fid"], len(images))
        return found | {
            "against": f"{config.data.name}, {config.data.split}",
            "training_images": training.moments.count,
        }

    def _codes(self, model: Inference, config: Any, workdir: pathlib.Path) -> tuple | None:
        """The codes of the data set's training images, and what they are held against."""
        if not self.disentanglement_images:
            return None
        dataset = open_labelled(config, self.dataset, "train", self.data_dir)
        found = codes_of(model, dataset, config, workdir, self.disentanglement_images, self.batch_size)
        return found.codes, *_disentangle.factors(found, dataset, self.attributes)


@dataclasses.dataclass(frozen=True)
class _Originals:
    """The first `count` images of a data set's split, or of files, where `split` is None; `size`: pixels a side."""

    images: Any
    name: str
    split: str | None
    count: int
    size: int


Task = Evaluate
