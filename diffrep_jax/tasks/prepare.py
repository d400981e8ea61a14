"""Write the images of a folder, zip or TFDS data set as an LMDB in the layout of the DiffAE project.

Writes to `<workdir>/`, which is then a --data_dir: the LMDB, manifest.json and, where there are any, the labels.
"""

import dataclasses
import logging
import pathlib
from typing import Any, ClassVar

from diffrep_jax.data import open_dataset
from diffrep_jax.data import prepare as engine
from diffrep_jax.errors import UserError
from diffrep_jax.runs.layout import Run, local
from diffrep_jax.tasks import base
from diffrep_jax.types import Config

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prepare(engine.Settings):
    """workers: threads that encode. See `engine.Settings` for the others."""

    needs_run: ClassVar[bool] = False

    workers: int = 8
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise UserError(f"tasks.prepare.workers is {self.workers}: use 1 or more.")

    def run(self, model: None, run: Run) -> dict[str, float]:
        config, workdir = run.config, local(run.folder, "--task=prepare")
        dataset = self._open(config.data)
        if dataset.key_digits is None:
            raise UserError(f"The data set '{dataset.name}' is not read from an LMDB: it needs no --task=prepare.")
        if self.crop and getattr(dataset, "crop", None) is None:
            raise UserError(
                f"The data set '{dataset.name}' has no published crop: set config.tasks.prepare.crop=False."
            )
        manifest = engine.prepare(
            dataset,
            workdir,
            engine.Settings(self.size, self.crop, self.quality, self.lossless),
            workers=self.workers,
            max_bad_fraction=config.data.max_bad_fraction,
            progress=base.progress,
        )
        log.info("%d images in '%s'; use it with --data_dir=%s", manifest["count"], workdir / manifest["lmdb"], workdir)
        return {"images": manifest["count"], "bad": len(manifest["bad"])}

    def _open(self, section: Config) -> Any:  # an ImageDataset, and mostly an engine.Preparable
        """The data set, with its attributes where there are any."""
        wanted = {
            "split": section.split,
            "image_size": section.image_size,
            "channels": section.channels,
            "data_dir": self.data_dir,
        }
        try:
            return open_dataset(section.name, attributes=True, **wanted)
        except UserError as error:
            dataset = open_dataset(section.name, **wanted)
            log.info("No attributes are written: %s", error)
            return dataset


Task = Prepare
