"""Which time-steps use the code: the denoiser's errors by time, with an image's own code, with another's, without one.

Each image is noised to each of the times, x_t = a x_T + b x_0 + c eps, and D(x_t, t) is asked three times: with the
image's own code, with that of the next image ("shuffled") and without one, which for PDAE and DiTi is the frozen DDPM.
For each there is, as a mean over images and pixels,

    loss   weight(t) (D - x_0)^2, the method's loss
    eps    |eps - eps_hat|, with eps_hat = (x_t - a x_T - b D) / c
    mse    (D - x_0)^2 of the clipped D: denoising in one step
    gap    that of the posterior mean of the step, the measure of PDAE's figure 2; of discrete steps alone

Where the own code does no better than another, the step does not use it. With blocks, DiTi's, each block's mean too.
DBAE's x_T, which comes from the code, stays the image's own. Of a DDPM there is one curve. `mse_mean_image` is what the
mean of these images has: where mse is above it, the denoiser is no help, and an image that begins there begins wrong.

Writes to `<workdir>/timesteps/`: loss.png, eps.png, mse.png, denoised.png (x_t | D without and with the code) and
metrics.json.
"""

import dataclasses
import logging
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset, ordered_batches
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.fields import check_numbers
from diffrep_jax.inference.model import Model
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _charts, _pictures, base

log = logging.getLogger(__name__)

MEASURES = ("loss", "eps", "mse", "gap")
WAYS = ("own", "shuffled", "none")


@dataclasses.dataclass(frozen=True)
class Timesteps(base.DecodingTask):
    """The fields besides those of a `DecodingTask`; the noise goes by the recipe's seed, image and time.

    Attributes:
      split: of the data set; num_images: its first ones, at least 2.
      points: how many times, in the middles of equal parts of the whole range.
      shown: how many of the times, and grid_images: how many of the images the picture has.
    """

    split: str = "test"
    num_images: int = 64
    points: int = 20
    shown: int = 4
    grid_images: int = 6

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "tasks.timesteps", {"num_images": 2, "points": 1, "shown": 1, "grid_images": 1})

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        model.noise_coded.check_encoded()
        self._dataset(run)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        model = model.noise_coded
        images = self._images(run)
        z, xT = self._codes(model, images)
        times = self.times(model)
        shown = set(np.linspace(0, len(times) - 1, min(self.shown, len(times))).round().astype(int).tolist())
        rows: list[dict[str, Any]] = []
        pictures = {"input": to_uint8(images[: self.grid_images])}
        for i in base.progress(range(len(times)), len(times), "timesteps"):
            row, made = self._at(model, images, z, xT, float(times[i]), i)
            rows.append(row)
            for name, picture in made.items() if i in shown else ():
                pictures[f"t = {times[i]:.3g}: {name}"] = to_uint8(np.clip(picture[: self.grid_images], -1, 1))
        of_mean = float(((images - images.mean(axis=0, dtype=np.float64)) ** 2).mean(dtype=np.float64))
        return self._write(model, run, rows, pictures, {"images": len(images), "mse_mean_image": of_mean})

    def times(self, model: Model) -> np.ndarray:
        """Increasing, [points], float64; steps where the process has steps."""
        process = model.method.process
        parts = (np.arange(self.points) + 0.5) / self.points
        if process.steps is not None:
            return np.unique(np.floor(parts * process.steps))
        return process.t_min + parts * (process.t_max - process.t_min)

    def _dataset(self, run: Run) -> ImageDataset:
        dataset = base.open_dataset(run.config, self.split, self.data_dir)
        if len(dataset) < 2:
            raise UserError(f"Split '{self.split}' has {len(dataset)} images; tasks.timesteps needs 2 to swap codes.")
        return dataset

    def _images(self, run: Run) -> np.ndarray:
        """[n, h, w, c] in [-1, 1]."""
        dataset = self._dataset(run)
        count = min(self.num_images, len(dataset))
        bad = run.config.data.max_bad_fraction
        batches = ordered_batches(dataset, batch_size=self.batch_size, num_images=count, max_bad_fraction=bad)
        images = [image for batch in batches for image in batch["image"]]
        if len(images) < 2:
            raise UserError(
                f"{len(images)} of the first {count} images of split '{self.split}' can be read; tasks.timesteps needs "
                "2 to swap codes: mend the others, or ask for more by tasks.timesteps.num_images."
            )
        return np.stack(images).astype(np.float32) / 127.5 - 1

    def _codes(self, model: Model, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(z, x_T) of the images."""
        parts = []
        for first in range(0, len(images), self.batch_size):
            z = model.encode(images[first : first + self.batch_size], numbers=first)
            parts.append((z, model.endpoint(z, first)))
        z, xT = (np.concatenate(values) for values in zip(*parts, strict=True))
        return z, xT

    def _at(
        self, model: Model, images: np.ndarray, z: np.ndarray, xT: np.ndarray, t: float, i: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(The errors at the i-th time, t, for metrics.json; {what a picture shows: its images}.)"""
        a, b, c = (float(k) for k in model.method.process.coefficients(np.asarray(t)))
        seeds = [np.random.default_rng([model.sampling.seed, number, i]) for number in range(len(images))]
        eps = np.stack([seed.standard_normal(images.shape[1:], np.float32) for seed in seeds])
        xt = (a * xT + b * images + c * eps).astype(np.float32)
        codes = {"own": z, "shuffled": np.roll(z, 1, axis=0), "none": None} if z.shape[1] else {"own": z}
        weight = float(np.asarray(model.auto_encoder.loss_weight(np.asarray(t))))
        row: dict[str, Any] = {"t": t, "block": int(model.auto_encoder.block_of(np.array([t]))[0])}
        made = {"x_t": xt}
        for way, code in reversed(codes.items()):
            denoised = self._denoise(model, xt, t, code, xT)
            eps_hat = (xt - a * xT - b * denoised) / c
            square = float(((denoised - images) ** 2).mean(dtype=np.float64))
            values = {
                "loss": weight * square,
                "eps": float(np.abs(eps - eps_hat).mean(dtype=np.float64)),
                "mse": float(((np.clip(denoised, -1, 1) - images) ** 2).mean(dtype=np.float64)),
            }
            if model.method.process.steps is not None:
                values["gap"] = _posterior_share(model, t) ** 2 * square
            row |= {f"{measure}_{way}": value for measure, value in values.items()}
            if way != "shuffled":
                made[f"D, {_names(model)[way] if z.shape[1] else 'no code'}"] = denoised
        return row, made

    def _denoise(self, model: Model, xt: np.ndarray, t: float, z: np.ndarray | None, xT: np.ndarray) -> np.ndarray:
        parts = [slice(first, first + self.batch_size) for first in range(0, len(xt), self.batch_size)]
        return np.concatenate([model.denoise(xt[p], t, None if z is None else z[p], xT[p]) for p in parts])

    def _write(
        self,
        model: Model,
        run: Run,
        rows: list[dict[str, Any]],
        pictures: dict[str, np.ndarray],
        of_images: dict[str, float],
    ) -> dict[str, float]:
        ways = [way for way in WAYS if f"loss_{way}" in rows[0]]
        names = [f"{measure}_{way}" for measure in MEASURES for way in ways if f"{measure}_{way}" in rows[0]]
        numbers = {name: float(np.mean([row[name] for row in rows])) for name in names}
        report: dict[str, Any] = {"times": rows, "split": self.split} | of_images
        if len({row["block"] for row in rows}) > 1:
            report["blocks"] = _by_block(rows, names)
        folder, called = run.task_folder("timesteps"), _names(model)
        for measure, title in (("loss", "loss"), ("eps", "mean |eps - eps_hat|"), ("mse", "MSE of D, clipped")):
            lines = {called[way]: [(row["t"], row[f"{measure}_{way}"]) for row in rows] for way in ways}
            if measure == "mse":
                lines["the images' mean"] = [(row["t"], of_images["mse_mean_image"]) for row in rows]
            _pictures.save_png(folder / f"{measure}.png", _charts.line_chart(lines, "t", title, log_y=True))
        _pictures.save_png(folder / "denoised.png", _pictures.labelled_grid(pictures))
        run.write_numbers("timesteps", numbers | report | {"seed": model.sampling.seed})
        values = ", ".join(f"{called[way]} {numbers[f'loss_{way}']:.5g}" for way in ways)
        log.info("Mean loss over %d times: %s; %s", len(rows), values, folder / "loss.png")
        return numbers


def _names(model: Model) -> dict[str, str]:
    """What the ways are called; the x_T of a bridge, which the image's own code makes, is there in all of them."""
    process = model.method.process
    kept = ", own x_T" if np.any(process.coefficients(np.asarray(process.t_max))[0]) else ""
    return dict(zip(WAYS, ("own code", f"another's code{kept}", f"no code{kept}"), strict=True))


def _posterior_share(model: Model, t: float) -> float:
    """The share of x_0 in the mean of q(x_{t-1} | x_t, x_0) (DDPM, eq. 7), of a process with steps."""
    process = model.method.process
    (_, b, c), (_, b_before, _) = (process.coefficients(np.asarray(s)) for s in (t, t - 1))
    return float(b_before * (1 - (b / b_before) ** 2) / c**2)


def _by_block(rows: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """The means over the times of each block that has one."""
    blocks: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        blocks.setdefault(row["block"], []).append(row)
    return [
        {"block": block, "first_t": own[0]["t"]} | {name: float(np.mean([row[name] for row in own])) for name in names}
        for block, own in blocks.items()
    ]


Task = Timesteps
