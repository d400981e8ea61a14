"""Reconstruct images from their codes: z = Enc(x_0), x_T from z, solve to t = 0. MSE and SSIM, a grid, arrays.

With `invert_steps` from their stochastic codes too, which is the papers' "inferred x_T".

Writes to `<workdir>/reconstruct/`: grid.png (input | x_T | reconstruction), arrays.npz (images, reconstructions uint8,
codes float32) and metrics.json.
"""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from diffrep_jax import pictures
from diffrep_jax.data import ordered_batches
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import image as metrics
from diffrep_jax.tasks import base
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reconstruct(base.ImageTask):
    """num_images: the first ones of `split`, -1 for all; grid_images: how many the picture shows."""

    num_images: int
    grid_images: int

    def __post_init__(self):
        super().__post_init__()
        if self.num_images < 1 and self.num_images != -1:
            raise UserError(f"tasks.reconstruct.num_images {self.num_images} must be at least 1, or -1 for all.")

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        dataset = base.open_dataset(config, self.split, self.data_dir)
        total = len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset))
        if total < self.num_images:
            log.warning("Split '%s' of %s has only %d images; taking all.", self.split, config.data.name, total)
        model = Inference(method, variables, mesh_of(variables))
        batches = ordered_batches(
            dataset,
            batch_size=self.batch_size,
            num_images=total,
            max_bad_fraction=config.data.max_bad_fraction,
        )
        parts: dict[str, list[np.ndarray]] = {"images": [], "reconstructions": [], "codes": []}
        endpoints: np.ndarray | None = None
        first = 0
        for batch in base.progress(batches, -(-total // self.batch_size), "reconstruct"):
            encoded = self.encode(model, batch["image"], first)
            parts["images"].append(to_uint8(batch["image"]))
            parts["reconstructions"].append(to_uint8(self.decode_encoded(model, encoded, first)))
            parts["codes"].append(encoded.z)
            if endpoints is None:
                endpoints = model.endpoint(encoded.z, self.seed, first)
            first += len(encoded.z)
        arrays = {name: np.concatenate(values) for name, values in parts.items()}
        description = {"dataset": config.data.name} | self.description(method)
        return self._write(base.output_folder(workdir, "reconstruct"), arrays, endpoints, description)

    def _write(
        self, folder: pathlib.Path, arrays: dict[str, np.ndarray], endpoints: Any, description: dict[str, Any]
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
        pictures.save_png(folder / "grid.png", pictures.labelled_grid(rows))
        np.savez(folder / "arrays.npz", **arrays)
        base.write_metrics(folder, numbers | {"images": len(x), "split": self.split} | description)
        log.info(
            "%d reconstructions: MSE %.5f (mean image: %.5f), SSIM %.4f; %s",
            *(len(x), numbers["mse"], numbers["mse_of_mean_image"], numbers["ssim"], folder / "grid.png"),
        )
        return numbers


Task = Reconstruct
