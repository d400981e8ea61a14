"""Interpolate between two images: lerp of their codes, x_T = Gen(z) at each point, decoded (DBAE, section 4.3).

With `invert_steps` slerp of their stochastic codes too, as PDAE and DiTi have it.

Writes to `<workdir>/interpolate/`: strip.png (first image | points | second image), arrays.npz, metrics.json and, with
`gif`, interpolation.gif.
"""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from diffrep_jax import pictures
from diffrep_jax.data.transforms import to_float
from diffrep_jax.encoded import between
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import image as metrics
from diffrep_jax.tasks import base
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Interpolate(base.ImageTask):
    """first, second: an image file, or an index into `split`; points: with both ends; gif: also an animation."""

    first: str
    second: str
    points: int
    gif: bool

    def __post_init__(self):
        super().__post_init__()
        if self.points < 2:
            raise UserError(f"tasks.interpolate.points {self.points} must be at least 2, the two ends.")

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        ends = np.stack([self.image(name, method, config) for name in (self.first, self.second)])
        model = Inference(method, variables, mesh_of(variables))
        encoded = self.encode(model, to_float(ends))
        points = [between(encoded[:1], encoded[1:], alpha) for alpha in np.linspace(0, 1, self.points)]
        images = self.decode_points(model, points, "interpolate")
        z = np.concatenate([point.z for point in points])
        return self._write(base.output_folder(workdir, "interpolate"), ends, images, z, self.description(method))

    def _write(
        self, folder: pathlib.Path, ends: np.ndarray, images: np.ndarray, z: np.ndarray, description: dict[str, Any]
    ) -> dict[str, float]:
        steps = metrics.mse(images[1:] / 255.0, images[:-1] / 255.0)
        numbers = {
            "mse_of_ends": float(metrics.mse(ends / 255.0, images[[0, -1]] / 255.0).mean()),
            "largest_step": float(np.sqrt(steps.max())),
        }
        strip = np.concatenate([ends[:1], images, ends[1:]])
        pictures.save_png(folder / "strip.png", pictures.labelled_grid({"input | lerp z | input": strip}))
        if self.gif:
            pictures.save_gif(folder / "interpolation.gif", list(images))
        np.savez(folder / "arrays.npz", ends=ends, images=images, codes=z)
        points = {"first": self.first, "second": self.second, "points": self.points, "split": self.split}
        base.write_metrics(folder, numbers | points | description)
        log.info("%d points between %s and %s; %s", self.points, self.first, self.second, folder / "strip.png")
        return numbers


Task = Interpolate
