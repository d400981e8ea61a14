"""Interpolate between two images: lerp of their codes, x_T = Gen(z) at each point, decoded (DBAE, section 4.3).

With `invert_steps` slerp of their stochastic codes too, as PDAE and DiTi have it. With `trajectory` the codes stay as
they are and what they do to the denoiser is mixed at every step (PDAE, section 4.3).

Writes to `<workdir>/interpolate/`: strip.png (first image | points | second image), arrays.npz, metrics.json and, with
`gif`, interpolation.gif.
"""

import dataclasses
import logging

import numpy as np

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.fields import PathText
from diffrep_jax.inference import edit
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import image as metrics
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.tasks import _pictures, base

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Interpolate(base.PhotoTask):
    """first, second: an image file, or the number of one of the images; points: with both ends; gif: also an animation.

    trajectory: mix the gradients of the two codes, PDAE's and DiTi's, in the place of the codes.
    """

    first: PathText = "0"
    second: PathText = "1"
    points: int = 11
    trajectory: bool = False
    gif: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.points < 2:
            raise UserError(f"tasks.interpolate.points {self.points} must be at least 2, the two ends.")

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        self._ends(model, run)

    def _ends(self, model: Model, run: Run) -> np.ndarray:
        if self.trajectory:
            model.check_mixes("tasks.interpolate.trajectory=True")
        return np.stack([self.image(field, model, run.config) for field in ("first", "second")])

    def run(self, model: Model, run: Run) -> dict[str, float]:
        ends = self._ends(model, run)
        self.warn_of_framing(run.config, (self.first, self.second))
        encoded = self.encode(model, ends)
        interpolate = edit.along_trajectories if self.trajectory else edit.interpolate
        way = interpolate(encoded[:1], encoded[1:], self.points)
        images = to_uint8(self.decode_points(model, way, "interpolate"))
        steps = metrics.mse(images[1:] / 255.0, images[:-1] / 255.0)
        numbers = {
            "mse_of_ends": float(metrics.mse(ends / 255.0, images[[0, -1]] / 255.0).mean()),
            "largest_step": float(np.sqrt(steps.max())),
        }
        folder, mixed = run.task_folder("interpolate"), "mixed gradients" if self.trajectory else "lerp z"
        strip = np.concatenate([ends[:1], images, ends[1:]])
        _pictures.save_png(folder / "strip.png", _pictures.labelled_grid({f"input | {mixed} | input": strip}))
        if self.gif:
            _pictures.save_gif(folder / "interpolation.gif", list(images))
        write_arrays(folder / "arrays.npz", ends=ends, images=images, codes=way.z)
        points = {"first": self.first, "second": self.second, "points": self.points, "split": self.split}
        points |= {"trajectory": self.trajectory}
        run.write_numbers("interpolate", numbers | points | self.description(model))
        log.info("%d points between %s and %s; %s", self.points, self.first, self.second, folder / "strip.png")
        return numbers


Task = Interpolate
