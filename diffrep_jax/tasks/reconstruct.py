"""Reconstruct images from their codes: z = Enc(x_0), x_T from z, solve to t = 0. MSE and SSIM, a grid, arrays.

With `invert_steps` from their stochastic codes too, which is the papers' "inferred x_T". With `prefixes` also from the
first blocks of the codes alone: how much of an image the blocks of DiTi's early time-steps hold.

Writes to `<workdir>/reconstruct/`: grid.png (input | what is decoded from | reconstruction), arrays.npz (images,
reconstructions uint8, codes float32) and metrics.json; with `prefixes` prefixes.png and prefixes_curve.png.
"""

import dataclasses
import logging
from typing import Any

import numpy as np

from diffrep_jax.data import ordered_batches
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.fields import check_count, check_numbers
from diffrep_jax.inference import edit
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.starts import starts
from diffrep_jax.metrics import image as metrics
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.tasks import _charts, _pictures, base

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Reconstruct(base.PhotoTask):
    """The fields besides those of a `PhotoTask`.

    Attributes:
      num_images: the first ones, -1 for all; grid_images: how many the picture shows.
      prefixes: numbers of blocks; for each, the images are also decoded from so many of the first blocks of z.
      blocks: how many equal ones z is cut into for that; 0: the method's own.
    """

    num_images: int = 64
    grid_images: int = 8
    prefixes: tuple[int, ...] = ()
    blocks: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_count(self.num_images, "tasks.reconstruct.num_images")
        check_numbers(self, "tasks.reconstruct", {"grid_images": 1, "blocks": 0})
        for count in self.prefixes:
            if type(count) is not int or count < 0:
                raise UserError(
                    f"tasks.reconstruct.prefixes holds {count!r}; give numbers of blocks, such as (1,8,64)."
                )

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        self._dimensions(model)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        config, dimensions = run.config, self._dimensions(model)
        dataset = self.open_images(config)
        self.warn_of_framing(config)
        total = len(dataset) if self.num_images == -1 else min(self.num_images, len(dataset))
        if total < self.num_images and self.images is None:
            log.warning("Split '%s' of %s has only %d images; taking all.", self.split, dataset.name, total)
        bad = config.data.max_bad_fraction
        batches = ordered_batches(dataset, batch_size=self.batch_size, num_images=total, max_bad_fraction=bad)
        parts: dict[str, list[np.ndarray]] = {"images": [], "reconstructions": [], "codes": []}
        begun: list[dict[str, np.ndarray]] = []
        shortened: dict[int, list[np.ndarray]] = {count: [] for count in dimensions}
        first = 0
        for batch in base.progress(batches, -(-total // self.batch_size), "reconstruct"):
            encoded = self.encode(model, batch["image"], first)
            parts["images"].append(batch["image"])
            parts["reconstructions"].append(to_uint8(model.decode(encoded, numbers=first)))
            parts["codes"].append(encoded.z)
            for count, kept in dimensions.items():
                images = model.decode(edit.prefix(encoded, kept), numbers=first)
                shortened[count].append(to_uint8(images))
            if first < self.grid_images:
                begun.append(starts(model, encoded, first))
            first += len(encoded)
        arrays = {name: np.concatenate(values) for name, values in parts.items()}
        description = {"dataset": dataset.name, "split": dataset.split} | self.description(model)
        if dimensions:
            made = {count: np.concatenate(images) for count, images in shortened.items()}
            description |= self._write_prefixes(run, arrays, made, dimensions)
        shown = {name: np.concatenate([part[name] for part in begun]) for name in begun[0]}
        return self._write(run, arrays, shown, description)

    def _dimensions(self, model: Model) -> dict[int, int]:
        """{number of blocks: how many dimensions these have}; UserError for more blocks than there are."""
        if not self.prefixes:
            return {}
        ends = edit.block_ends(model.auto_encoder.block_ends, self.blocks, "tasks.reconstruct.blocks")
        edges = [0, *ends.tolist()]
        if (most := max(self.prefixes)) >= len(edges):
            raise UserError(
                f"tasks.reconstruct.prefixes asks for {most} blocks; this model has {len(ends)}. Take fewer, or cut z "
                "into more equal ones with tasks.reconstruct.blocks."
            )
        return {count: edges[count] for count in sorted(set(self.prefixes))}

    def _write_prefixes(
        self, run: Run, arrays: dict[str, np.ndarray], made: dict[int, np.ndarray], dimensions: dict[int, int]
    ) -> dict[str, Any]:
        """The picture and the curve; the quality by number of blocks, for metrics.json."""
        x, lines = arrays["images"] / 255.0, []
        for count, images in made.items():
            y = images / 255.0
            quality = {"mse": float(metrics.mse(x, y).mean()), "ssim": float(metrics.ssim(x, y).mean())}
            lines.append({"blocks": count, "dimensions": dimensions[count]} | quality)
        folder, shown = run.task_folder("reconstruct"), slice(0, self.grid_images)
        rows = {f"{count} block{'s'[: count != 1]}": images[shown] for count, images in made.items()}
        grid = {"input": arrays["images"][shown]} | rows | {"all of z": arrays["reconstructions"][shown]}
        _pictures.save_png(folder / "prefixes.png", _pictures.labelled_grid(grid))
        curve = {"MSE": [(line["blocks"], line["mse"]) for line in lines]}
        chart = _charts.line_chart(curve, "first blocks of z that are decoded from", "MSE", log_y=True)
        _pictures.save_png(folder / "prefixes_curve.png", chart)
        return {"prefixes": lines}

    def _write(
        self, run: Run, arrays: dict[str, np.ndarray], begun: dict[str, np.ndarray], description: dict[str, Any]
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
        rows = {"input": arrays["images"][shown]}
        rows |= {name: to_uint8(start[shown]) for name, start in begun.items()}
        rows["reconstruction"] = arrays["reconstructions"][shown]
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
