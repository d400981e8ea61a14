"""Reconstruct images from their codes: z = Enc(x_0), x_T from z, solve to t = 0. MSE and SSIM, a grid, arrays.

With `invert_steps` from their stochastic codes too, which is the papers' "inferred x_T".

Writes to `<workdir>/reconstruct/`: grid.png (input | x_T | reconstruction), arrays.npz (images, reconstructions uint8,
codes float32) and metrics.json.
"""

import dataclasses
import logging
from typing import Any

import numpy as np

from diffrep_jax.data import ordered_batches
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.fields import check_count, check_numbers
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import image as metrics
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.tasks import _pictures, base

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reconstruct(base.ImageTask):
    """num_images: the first ones of `split`, -1 for all; grid_images: how many the picture shows."""

    num_images: int = 64
    grid_images: int = 8

    def __post_init__(self):
        super().__post_init__()
        check_count(self.num_images, "tasks.reconstruct.num_images")
        check_numbers(self, "tasks.reconstruct", {"grid_images": 1})

    def run(self, model: Model, run: Run) -> dict[str, float]:
        config = run.config
        dataset = base.open_dataset(config, self.split, self.data_dir)
        total = len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset))
        if total < self.num_images:
            log.warning("Split '%s' of %s has only %d images; taking all.", self.split, config.data.name, total)
        bad = config.data.max_bad_fraction
        batches = ordered_batches(dataset, batch_size=self.batch_size, num_images=total, max_bad_fraction=bad)
        parts: dict[str, list[np.ndarray]] = {"images": [], "reconstructions": [], "codes": []}
        endpoints: list[np.ndarray] = []
        first = 0
        for batch in base.progress(batches, -(-total // self.batch_size), "reconstruct"):
            encoded = self.encode(model, batch["image"], first)
            parts["images"].append(batch["image"])
            parts["reconstructions"].append(to_uint8(model.decode(encoded, numbers=first)))
            parts["codes"].append(encoded.z)
            if first < self.grid_images:
                endpoints.append(model.endpoint(encoded.z, first))
            first += len(encoded)
        arrays = {name: np.concatenate(values) for name, values in parts.items()}
        description = {"dataset": config.data.name, "split": self.split} | self.description(model)
        return self._write(run, arrays, np.concatenate(endpoints), description)

    def _write(
        self, run: Run, arrays: dict[str, np.ndarray], endpoints: np.ndarray, description: dict[str, Any]
    ) -> dict[str, float]:
        x, y = arrays["images"] / 255.0, arrays["reconstructions"] / 255.0
        numbers = {
            "mse": float(metrics.mse(x, y).mean()),
            "ssim": float(metrics.ssim(x, y).mean()),
            "ssim_official": float(metrics.ssim_official(x, y).mean()),  # to compare with DBAE's table 2 alone
            # the MSE of always answering the mean of these images is the scale to judge the MSE by
            "mse_of_mean_image": float(metrics.mse(x, x.mean(0, keepdims=True)).mean()),
        }
        shown = slice(0, self.grid_images)
        rows = {
            "input": arrays["images"][shown],
            "x_T": to_uint8(endpoints[shown]),
            "reconstruction": arrays["reconstructions"][shown],
        }
        folder = run.task_folder("reconstruct")
        _pictures.save_png(folder / "grid.png", _pictures.labelled_grid(rows))
        write_arrays(folder / "arrays.npz", **arrays)
        run.write_numbers("reconstruct", numbers | {"images": len(x)} | description)
        log.info(
            "%d reconstructions: MSE %.5f (mean image: %.5f), SSIM %.4f; %s",
            len(x),
            numbers["mse"],
            numbers["mse_of_mean_image"],
            numbers["ssim"],
            folder / "grid.png",
        )
        return numbers


Task = Reconstruct
