"""Encode a data set once: codes, labels, mean and deviation in one file, which probe, manipulate and a prior read.

The codes of another network, or of images that have changed since, are made anew; the labels are those of the data.
Writes to `<workdir>/encode/`: <dataset>_<split>.npz and metrics.json. The file grows in parts, so that what was stopped
or killed goes on where it was, and the hosts of a cluster share the parts.
"""

import dataclasses
import logging
import pathlib
from typing import ClassVar

from diffrep_jax import hosts
from diffrep_jax.inference.model import Model
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _codes, base

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Encode:
    """The fields of `config.tasks.encode`.

    Attributes:
      dataset: "" for the run's own; split: of it.
      num_images: its first ones, -1 for all; what is kept of more of them stays. batch_size: images at a time.
    """

    needs_run: ClassVar[bool] = True

    dataset: str = ""
    split: str = "train"
    num_images: int = -1
    batch_size: int = 64
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        base.check_encoding("encode", self.dataset, self.num_images, self.batch_size)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        dataset = _codes.open_labelled(run.config, self.dataset, self.split, self.data_dir)
        codes = _codes.codes_of(model, dataset, run, self.num_images, self.batch_size)
        numbers: dict[str, float] = {"images": len(codes.codes), "latent_dim": codes.codes.shape[1]}
        labels = {"classes": len(codes.class_names), "attributes": len(codes.attribute_names)}
        if hosts.is_first():
            run.write_numbers(
                "encode", numbers | labels | _codes.encoding(model) | {"dataset": dataset.name, "split": self.split}
            )
        path = _codes.path_of(run.task_folder("encode"), dataset.name, self.split)
        log.info("%d codes of %d numbers are in %s", *codes.codes.shape, path)
        return numbers


Task = Encode
