"""Look at the data before they are trained on: count, sizes, keys, a contact sheet, entries that do not decode.

Writes to `<workdir>/inspect_data/`: contact_sheet.png (images as the model gets them), bad_entries.txt (a key and what
is wrong with it a line) and metrics.json.
"""

import dataclasses
import logging
import pathlib
from typing import ClassVar

import numpy as np

from diffrep_jax import data
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.inspection import inspect
from diffrep_jax.errors import UserError
from diffrep_jax.runs.layout import Run, write_text
from diffrep_jax.tasks import _pictures, base

log = logging.getLogger(__name__)

COLUMNS = 8
MOST_COMMON = 20  # sizes that are listed


@dataclasses.dataclass(frozen=True)
class InspectData:
    """split: of the contact sheet, which has `shown` images from all over it; num_images: how many entries of the
    whole source are decoded, the first ones, -1 for all; workers: threads that do so."""

    needs_run: ClassVar[bool] = False

    split: str = "train"
    num_images: int = -1
    shown: int = 64
    workers: int = 8
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        for field, least in (("num_images", -1), ("shown", 1), ("workers", 1)):
            if getattr(self, field) < least or getattr(self, field) == 0:
                raise UserError(f"tasks.inspect_data.{field} is {getattr(self, field)}: use 1 or more.")

    def run(self, model: None, run: Run) -> dict[str, float]:
        config = run.config
        dataset = base.open_dataset(config, self.split, self.data_dir)
        if config.data.channels not in (1, 3):
            raise UserError(f"'{dataset.name}' holds no images to look at: inspect the data of its auto-encoder.")
        source = dataset.source
        count = len(source) if self.num_images == -1 else min(self.num_images, len(source))
        report = inspect(source, range(count), self.workers, base.progress)
        folder = run.task_folder("inspect_data")
        write_text(folder / "bad_entries.txt", "".join(f"{key}\t{why}\n" for key, why in report.bad))
        _pictures.save_png(folder / "contact_sheet.png", _pictures.labelled_grid(self._rows(dataset)))
        numbers: dict[str, float] = {"images": len(source), "inspected": count, "bad": len(report.bad)}
        description = {
            "source": f"{source.kind} {source.path}",
            "keys": [source.key(0), source.key(len(source) - 1)],
            "sizes": dict(report.sizes.most_common(MOST_COMMON)),
            "kinds": dict(report.kinds.most_common()),
            "splits": {self.split: len(dataset)},
            "class_names": list(dataset.class_names),
        }
        run.write_numbers("inspect_data", numbers | description)
        sizes = ", ".join(f"{images} of {size}" for size, images in report.sizes.most_common(3))
        log.info(
            "%s: %d images, '%s' to '%s'.",
            f"{source.kind} {source.path}",
            len(source),
            source.key(0),
            source.key(len(source) - 1),
        )
        log.info("%d decoded: %s%s.", count - len(report.bad), sizes, ", ..." if len(report.sizes) > 3 else "")
        for _, why in report.bad[:10]:
            log.warning("%s", why)
        log.info("%d of %d do not decode; %s", len(report.bad), count, folder)
        return numbers

    def _rows(self, dataset: data.ImageDataset) -> dict[str, np.ndarray]:
        """Rows of images of the split, evenly spaced; each named by the number of its first."""
        images: dict[int, np.ndarray] = {}
        looked_at = np.unique(np.linspace(0, len(dataset) - 1, self.shown).round().astype(int))
        for index in looked_at:
            try:
                images[int(index)] = dataset[int(index)]["image"]
            except BadEntry:
                continue
        if not images:
            raise UserError(f"None of {len(looked_at)} images of '{dataset.source.path}' decodes: see bad_entries.txt.")
        numbers = list(images)
        starts = range(0, len(numbers), COLUMNS)
        return {str(numbers[i]): np.stack([images[n] for n in numbers[i : i + COLUMNS]]) for i in starts}


Task = InspectData
