"""How good a run is: its reconstructions by sampler and number of evaluations, its samples, its codes.

MSE, PSNR, SSIM, LPIPS and rFID of the run's reconstructions, or of images that lie in files; FID, precision, recall and
inception score of generated images, and FID of interpolations, against the training images; TAD, ATTRS and DCI of the
codes. Images are taken batch by batch, sums and moments are all that is kept, and features of the first 50,000 that are
generated or trained on. Writes `<workdir>/evaluate/metrics.json`; rows and numbers of codes stay in it as long as the
weights do.
"""

import dataclasses
import functools
import logging
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from diffrep_jax import data
from diffrep_jax.data import image_sets
from diffrep_jax.data.fingerprint import digest
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import Count, PathText, check_count
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import disentanglement
from diffrep_jax.runs import weights
from diffrep_jax.runs.layout import NUMBERS, SAMPLES, Run, as_path, read_json
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.tasks import _codes, _disentangle, _reconstructions, _rows, base
from diffrep_jax.tasks._measures import (
    MEASURES,
    Instruments,
    OfSet,
    compare,
    distances,
    keep,
    open_instruments,
    quality,
    update,
)
from diffrep_jax.tasks._rows import VARIED, Earlier, Line, Row, is_current
from diffrep_jax.types import Config, Process

log = logging.getLogger(__name__)

PLOTTED = (*MEASURES, "precision", "recall", "inception_score", "fid_interpolation", "tad", "attributes")


@dataclasses.dataclass(frozen=True)
class Evaluate(base.ImageTask):
    """The fields of `config.tasks.evaluate`.

    Attributes:
      dataset: "" for the run's own; num_images: of its split, the first ones, -1 for all, 0 for no reconstructions.
      rows: one line of the report each: a number of steps, or {field: value} of what differs from the recipe, such as
        {"steps": 100, "eta": 0.0}; () for one line by the recipe as it is.
      counts: numbers of evaluations, at each of which every row is measured, by as many steps as make no more; a line
        is written as soon as it is measured, and one that an earlier call has measured is not measured again. () for
        the rows' own steps.
      without: measures that are left out, such as ("lpips", "fid").
      interpolate_at: also the FID of images between each image and the next, so far on the way in (0, 1); 0 for none.
      reconstructions: images in place of the run's own reconstructions, a folder, zip, LMDB or .npz; "" for none.
      reference: what they are compared with, in the same order; "" for the split.
      generated: images whose FID is wanted, likewise; () for the run's sample/samples.npz, if it is there.
      disentanglement_images: how many training images TAD and ATTRS see, the first ones, -1 for all; dci_images: how
        many of these DCI sees; 0 for none. Without the former the latter means nothing.
      attributes: the names of those that the codes are held against; () for all.
    """

    dataset: str = ""
    num_images: int = -1
    rows: tuple[Any, ...] = ()
    counts: tuple[Count, ...] = ()
    without: tuple[str, ...] = ()
    interpolate_at: float = 0.0
    reference: PathText = ""
    reconstructions: PathText = ""
    generated: tuple[PathText, ...] = ()
    disentanglement_images: int = 0
    dci_images: int = 0
    attributes: tuple[str, ...] = ()
    weights_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        super().__post_init__()
        check_count(self.num_images, "tasks.evaluate.num_images", none=True)
        check_count(self.disentanglement_images, "tasks.evaluate.disentanglement_images", none=True)
        base.check_dataset("evaluate", self.dataset)
        for name in self.without:
            if name not in MEASURES:
                raise unknown("measure", name, MEASURES, "tasks.evaluate.without")
        if not 0 <= self.interpolate_at < 1:
            raise UserError(f"tasks.evaluate.interpolate_at {self.interpolate_at} is outside [0, 1); 0 is for none.")
        if self.reference and not self.reconstructions:
            raise UserError(f"tasks.evaluate.reference '{self.reference}' needs tasks.evaluate.reconstructions too.")
        if self.num_images == 0 and (self.reconstructions or self.interpolate_at):
            named = "reconstructions" if self.reconstructions else "interpolate_at"
            raise UserError(
                f"tasks.evaluate.num_images 0 leaves nothing to measure for tasks.evaluate.{named}: give a number of "
                "images, or -1 for all; or leave that out."
            )
        if self.counts and self.reconstructions:
            raise UserError("tasks.evaluate.counts is of no use to images in files; leave it or reconstructions out.")
        self._check_codes()
        self.recipes(Sampling())

    def _check_codes(self) -> None:
        """Raise UserError for numbers of images that TAD or DCI cannot be measured on."""
        images, dci = self.disentanglement_images, self.dci_images
        for name, value in (("disentanglement_images", images), ("dci_images", dci)):
            if 0 < value < disentanglement.FOLDS:
                least = disentanglement.FOLDS
                raise UserError(f"tasks.evaluate.{name} {value} is too few: give {least} or more, or 0 for none.")
        if dci < 0:
            raise UserError(f"tasks.evaluate.dci_images {dci}: give 0 for none, or a number of images.")
        if 0 < images < dci:
            raise UserError(
                f"tasks.evaluate.dci_images {dci} is more than the {images} of tasks.evaluate.disentanglement_images, "
                "of which they are the first ones; lower it, or raise that."
            )

    def recipes(self, usual: Sampling, process: Process | None = None) -> list[Row]:
        """How each line decodes, with a process at each of `counts`; UserError for a row that says nothing of it."""
        rows = [_rows.parsed(row, usual, self.invert_steps) for row in self.rows or ({},)]
        for row in self.rows if self.counts else ():
            _rows.check_without_steps(row)
        if process is None or not self.counts:
            return rows
        return [at for row in rows for at in _rows.at_counts(row, self.counts, process)]

    def _wanted(self, model: Model) -> list[Row]:
        """The lines of reconstructions, none where images lie in files."""
        measured = self.num_images != 0 and not self.reconstructions
        return self.recipes(model.sampling, model.method.process) if measured else []

    def check(self, model: Model, run: Run) -> None:
        """As `base.Task.check`. It loads the weights of the measures too: what is missing is said at once."""
        originals, generated = self._opened(model, run, self._wanted(model))
        if generated or self.interpolate_at:
            self._training_images(run.config)
        open_instruments(self.without, self.weights_dir, originals.size)

    def _opened(self, model: Model, run: Run, rows: list[Row]) -> tuple["_Originals", list[image_sets.ImageSet]]:
        """What is reconstructed and what was generated; UserError for all that is known not to fit before the work."""
        for row in rows:
            model.check_encoded(row.invert_steps, row.how)
            base.describe(row.how, model.method)
        originals, generated = self._originals(run.config), self._generated(model, run)
        if self.reconstructions:
            self._made(originals)
        if self.disentanglement_images:
            model.check_encoded()
            dataset = self._labelled(run)
            images = _codes.check_count(dataset, self.disentanglement_images)
            _disentangle.check(dataset, images, self.attributes)
        return originals, generated

    def run(self, model: Model, run: Run) -> dict[str, float]:
        """Measure all that is asked for; the numbers are those of the first row."""
        config, rows = run.config, self._wanted(model)
        originals, generated = self._opened(model, run, rows)
        instruments = open_instruments(self.without, self.weights_dir, originals.size)
        training: dict[str, OfSet] = {}
        if instruments.sets and (generated or self.interpolate_at):
            training = self._training(config, instruments)
        report: dict[str, Any] = {"missing": dict(instruments.missing)}
        if not run.is_preview:  # in training they may lie on the devices of several hosts
            report["weights"] = weights.digest(model.variables)
        place = _place(config, originals.images, originals.name, originals.split)
        earlier, lines = Earlier(run, report.get("weights"), place), []
        codes = self._codes(model, run)
        decode = functools.partial(self._decoded, model, config, instruments, originals, training)
        if self.reconstructions:
            lines = [self._compared(config, instruments, originals) | place]
        elif self.counts:
            common = place | {"images": originals.count}
            common |= {"interpolate_at": self.interpolate_at} if self.interpolate_at and training else {}
            measures = (*instruments.pairs, *instruments.sets)
            known = functools.partial(
                earlier.line, measures=measures, most_bad=config.data.max_bad_fraction * len(originals.images)
            )
            for line in self._one_by_one(decode, rows, common, known):
                lines.append(line)
                _keep(run, earlier, report, lines)
        elif rows:
            lines = [line | place for line in decode(rows)]
        if generated or codes is not None:
            _keep(run, earlier, report, lines)  # what follows takes long
        if generated and training:
            report["generated"] = [self._distances(images, instruments, training, config) for images in generated]
        if codes is not None:
            its_place, factors = codes
            report["disentanglement"] = its_place | _disentangle.measure(*factors, trees=self.dci_images)
        earlier.read()
        if codes is None and (kept := self._kept_of_codes(config, originals, earlier)):
            report["disentanglement"] = kept
        report["rows"] = earlier.with_others(lines)
        run.write_numbers("evaluate", report)
        log.info("%s", run.task_folder("evaluate") / "metrics.json")
        return _plotted(lines, report)

    def _batches(self, config: Config, dataset: data.ImageDataset, count: int, what: str) -> Iterator[np.ndarray]:
        """uint8 images."""
        bad = config.data.max_bad_fraction
        batches = data.ordered_batches(dataset, batch_size=self.batch_size, num_images=count, max_bad_fraction=bad)
        for batch in base.progress(batches, -(-count // self.batch_size), what):
            yield batch["image"]

    # Reconstructions by recipe

    def _decoded(
        self,
        model: Model,
        config: Config,
        instruments: Instruments,
        originals: "_Originals",
        training: Mapping[str, OfSet],
        rows: list[Row],
    ) -> list[Line]:
        """A line for each recipe."""
        count = originals.count
        batches = self._batches(config, originals.images, count, "evaluate")
        at = self.interpolate_at if training else 0.0
        size = min(self.batch_size, count)
        measured, real = _reconstructions.measure(model, batches, size, rows, instruments, at)
        lines = []
        for item in measured:
            line = _reconstructions.entry(item, model, real, count)
            line |= _reconstructions.halfway(item, training, at) if at else {}
            log.info("%s", _shown(line))
            lines.append(line)
        return lines

    def _one_by_one(
        self,
        decode: Callable[[list[Row]], list[Line]],
        rows: list[Row],
        common: Line,
        known: Callable[[Line], Line | None],
    ) -> Iterator[Line]:
        """The lines at all counts, those of an earlier call as they are; common: what is the same in all of them."""
        for row in base.progress(rows, len(rows), "recipes and counts"):
            yield known(row.described() | common) or common | decode([row])[0]

    # Files against files, or against the split

    def _compared(self, config: Config, instruments: Instruments, originals: "_Originals") -> dict[str, Any]:
        made, count = self._made(originals), originals.count
        if self.reference:
            given = image_sets.batches(originals.images, self.batch_size, count)
        else:
            given = self._batches(config, originals.images, count, "evaluate")
        pairs, real = compare(given, image_sets.batches(made, self.batch_size, count), instruments)
        if pairs.count != count:  # an unreadable image was left out: those after it have no partner
            raise UserError(
                f"Only {pairs.count} of the {count} images of {originals.name} can be read; mend the others."
            )
        row = {**dict.fromkeys((*VARIED, "evaluations", "seed")), "reconstructions": self.reconstructions}
        row |= {"images": count, "seconds": None}
        row |= pairs.numbers(real)
        log.info("%s", _shown(row))
        return row

    def _made(self, originals: "_Originals") -> image_sets.ImageSet:
        """The files in the place of reconstructions; UserError where their number is another."""
        made = image_sets.open_images(pathlib.Path(as_path(self.reconstructions)), ("reconstructions", "images"))
        count = originals.count
        if len(made) < count or (self.num_images == -1 and len(made) > count):
            counts = f"{self.reconstructions} has {len(made)} images, {originals.name} {count}"
            raise UserError(f"{counts}: each needs its partner; set tasks.evaluate.num_images.")
        return made

    def _originals(self, config: Config) -> "_Originals":
        """What is reconstructed; UserError where there are fewer images than asked for."""
        if self.reference:
            images = image_sets.open_images(pathlib.Path(as_path(self.reference)), ("images", "reconstructions"))
            name, split, place = self.reference, None, self.reference
            size = min(next(images.images())[1].shape[:2]) if len(images) else 0
        else:
            images = base.open_dataset(config, self.split, self.data_dir, self.dataset)
            name, split, place = images.name, self.split, f"split '{self.split}' of '{images.name}'"
            size = config.data.image_size
        if self.num_images > len(images):
            raise UserError(f"tasks.evaluate.num_images {self.num_images}: {place} has {len(images)}; ask less.")
        return _Originals(images, name, split, len(images) if self.num_images == -1 else self.num_images, size)

    # Generated images against the training images

    def _training(self, config: Config, instruments: Instruments) -> dict[str, OfSet]:
        """All images that the run was trained on, as a set."""
        dataset, sets = self._training_images(config), instruments.new_sets()
        keep(sets)
        for pixels in self._batches(config, dataset, len(dataset), "training images"):
            update(sets, pixels)
        return sets

    def _training_images(self, config: Config) -> data.ImageDataset:
        return base.open_dataset(config, config.data.split, self.data_dir)

    def _generated(self, model: Model, run: Run) -> list[image_sets.ImageSet]:
        """Those that are named, else the run's own, unless they are known to be of other weights."""
        paths = [pathlib.Path(as_path(path)) for path in self.generated]
        usual = run.folder / "sample" / SAMPLES
        if not paths and usual.is_file():
            described = usual.with_name(NUMBERS)
            numbers = read_json(described, "run --task=sample again.") if described.is_file() else {}
            if numbers.get("weights") in (None, weights.digest(model.variables)):
                paths = [pathlib.Path(usual)]
            else:
                log.warning("%s is of another state of the network: not measured; run --task=sample again.", usual)
        return [image_sets.open_images(path, ("samples", "images")) for path in paths]

    def _distances(
        self, images: image_sets.ImageSet, instruments: Instruments, training: Mapping[str, OfSet], config: Config
    ) -> dict[str, Any]:
        sets = instruments.new_sets()
        keep(sets)
        parts = image_sets.batches(images, self.batch_size, len(images))
        for batch in base.progress(parts, -(-len(images) // self.batch_size), "generated images"):
            update(sets, batch)
        line: dict[str, Any] = {"path": str(images.path), "images": len(images)} | distances(sets, training)
        line |= quality(sets, training)
        log.info("%s", _shown(line | {"sampler": None, "evaluations": None, "reconstructions": images.path}))
        seen = next(iter(training.values())).count
        return line | {"against": f"{config.data.name}, {config.data.split}", "training_images": seen}

    # Codes

    def _codes(self, model: Model, run: Run) -> tuple[Line, tuple] | None:
        """Of what they are; the codes of the data set's training images, and what these are held against."""
        if not self.disentanglement_images:
            return None
        dataset = self._labelled(run)
        codes = _codes.codes_of(model, dataset, run, self.disentanglement_images, self.batch_size)
        place = _place(run.config, dataset, dataset.name, dataset.split)
        return place, (codes.codes, *_disentangle.factors(codes, dataset, self.attributes))

    def _kept_of_codes(self, config: Config, originals: "_Originals", earlier: Earlier) -> Line | None:
        """What an earlier call has measured of codes, unless these were of other images or of another method."""
        kept = earlier.report.get("disentanglement")
        if not kept or originals.split is None or kept.get("dataset") != originals.name:
            return kept
        try:
            images = base.open_dataset(config, "train", self.data_dir, self.dataset)
        except UserError:
            return kept  # they are not here to be compared, and nothing else needs them
        if is_current(kept, _place(config, images, images.name, images.split)):
            return kept
        log.info("The numbers of codes are of other images or other settings of the method: left out.")
        return None

    def _labelled(self, run: Run) -> data.ImageDataset:
        return _codes.open_labelled(run.config, self.dataset, "train", self.data_dir)


@dataclasses.dataclass(frozen=True)
class _Originals:
    """The first `count` images of a data set's split, or of files, where `split` is None; `size`: pixels a side."""

    images: Any
    name: str
    split: str | None
    count: int
    size: int


def _place(config: Config, images: Any, name: str, split: str | None) -> Line:
    """Of what a line is: images, the settings of the method."""
    if split is None:
        return {"dataset": name, "split": None}  # files
    fingerprint = digest(images.fingerprint(), config.method.to_json(sort_keys=True))
    return {"dataset": name, "split": split, "fingerprint": fingerprint[:16]}


def _keep(run: Run, earlier: Earlier, report: Line, lines: list[Line]) -> None:
    """Write what is measured so far, with what others have written since; a preview's file says that it is complete."""
    if run.is_preview:
        return
    earlier.read()
    run.write_numbers("evaluate", earlier.report | report | {"rows": earlier.with_others(lines)})


def _shown(row: Mapping[str, Any]) -> str:
    """A row of metrics.json for the log."""
    count = row["evaluations"]
    how = f"{row['sampler']}, {count} evaluation{'s'[: count > 1]}" if row["sampler"] else row["reconstructions"]
    values = [f"{name} {row[name]:.5g}" for name in PLOTTED if isinstance(row.get(name), float)]
    return f"{how}, {row['images']} images: {', '.join(values)}"


def _plotted(lines: list[Line], report: Mapping[str, Any]) -> dict[str, float]:
    """What a training run plots, of the first row."""
    values = (lines or [{}])[0] | report.get("disentanglement", {})
    return {name: values[name] for name in PLOTTED if isinstance(values.get(name), float)}


Task = Evaluate
