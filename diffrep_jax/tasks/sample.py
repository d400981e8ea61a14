"""Make new images: from noise alone where the method has no code, else from codes that a prior has made.

With a prior: z = its sample, by the recipe of its own run, x_T from z, decoded. Without one `aggregate` draws z from a
density that is read off the training codes, all of them together ("DBAE + AE"). Writes to `<workdir>/sample/`:
grid.png, samples.npz (images uint8 [n, h, w, c], of an auto-encoder also codes float32 [n, d]) and metrics.json.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import PathText, check_numbers
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods.base import Unconditional, build
from diffrep_jax.runs import checkpoint, weights
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import SAMPLES, Run, as_path, write_arrays
from diffrep_jax.tasks import _codes, _pictures, base
from diffrep_jax.types import Config

log = logging.getLogger(__name__)

COLUMNS = 8
AGGREGATES = ("gaussian", "kernel")


@dataclasses.dataclass(frozen=True)
class Sample(base.DecodingTask):
    """Image i depends on the seed and on i alone.

    Attributes:
      num_images: how many; grid_images: how many of them the picture shows.
      prior: the run of a latent prior, for an auto-encoder; "" for a method without a code.
      aggregate: in the place of a prior, the density of z: "gaussian" with the training codes' mean and covariance, or
        "kernel", a normal one round each of them; "" for none.
      bandwidth: the kernel's deviation, in those of the codes; 0 draws training codes as they are.
    """

    num_images: int = 64
    grid_images: int = 64
    prior: PathText = ""
    aggregate: str = ""
    bandwidth: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "tasks.sample", {"num_images": 1, "grid_images": 1, "bandwidth": 0})
        if self.aggregate not in ("", *AGGREGATES):
            raise unknown("density of codes", self.aggregate, AGGREGATES, "tasks.sample.aggregate")
        if self.aggregate and self.prior:
            raise UserError(
                f"tasks.sample.prior={self.prior} and aggregate={self.aggregate} are two densities of codes; leave one "
                "out."
            )

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        if self.aggregate:
            self._training_images(model, run)
        elif self._needs_prior(model, run):
            place = f"tasks.sample.prior={self.prior}"
            model.prior_method(build(prior_config(as_path(self.prior), place).method), place)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        source = self._density(model, run) if self.aggregate else self._open_prior(model, run)
        parts: list[dict[str, np.ndarray]] = []
        starts = range(0, self.num_images, self.batch_size)
        for first in base.progress(starts, len(starts), "sample"):
            parts.append(_part(model, source, first, min(self.batch_size, self.num_images - first)))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        folder = run.task_folder("sample")
        shown = arrays["images"][: self.grid_images]
        rows = {f"{i}": shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)}
        _pictures.save_png(folder / "grid.png", _pictures.labelled_grid(rows))
        write_arrays(folder / SAMPLES, **arrays)
        numbers: dict[str, float] = {"images": len(arrays["images"])}
        described = self._describe(source) | _codes.encoding(model)
        if not run.is_preview:
            described |= {"weights": weights.digest(model.variables)}
        run.write_numbers("sample", numbers | base.describe(model.sampling, model.method) | described)
        log.info("%d samples; %s", numbers["images"], folder / "grid.png")
        return numbers

    def _open_prior(self, model: Model, run: Run) -> Model | None:
        """None for a method that needs none; UserError as of `_needs_prior` and `open_prior`."""
        return open_prior(as_path(self.prior), model, run) if self._needs_prior(model, run) else None

    def _needs_prior(self, model: Model, run: Run) -> bool:
        """Whether it samples from a prior; UserError for a method that makes no images, and where one is named in vain
        or missing."""
        if isinstance(model.method, Unconditional):
            if not model.method.makes_images:
                raise UserError(
                    f"{run.root} makes codes, no images: sample with its auto-encoder's --workdir and "
                    f"--config.tasks.sample.prior={run.root}."
                )
            if self.prior:
                raise UserError(
                    f"tasks.sample.prior={self.prior} is of no use: the model in {run.root} has no codes; leave it out."
                )
            return False
        if not self.prior:
            raise UserError(
                f"An auto-encoder needs codes to start from: run --task=encode --workdir={run.root}, then train a "
                f"prior (--config=configs/latent_prior_FILE.py --data_dir={run.root}/encode --workdir=PRIOR), then "
                "add --config.tasks.sample.prior=PRIOR. Or draw them from all training codes together: "
                "--config.tasks.sample.aggregate=gaussian."
            )
        return True

    def _density(self, model: Model, run: Run) -> "Aggregate":
        """Of the codes of the run's training images, which are encoded where the folder `encode` has them not."""
        dataset = self._training_images(model, run)
        log.info("A density of all codes, %d dimensions each.", model.latent_dim)
        codes = _codes.codes_of(model, dataset, run, -1, self.batch_size).codes.astype(np.float64)
        bandwidth = self.bandwidth if self.aggregate == "kernel" else None
        return Aggregate(codes, bandwidth, model.sampling.seed)

    def _training_images(self, model: Model, run: Run) -> ImageDataset:
        model.check_encoded()  # refuses a method without codes
        return _codes.open_labelled(run.config, "", run.config.data.split, self.data_dir)

    def _describe(self, prior: "Model | Aggregate | None") -> dict[str, Any]:
        """The recipe of the prior, or the density, for metrics.json."""
        if prior is None:
            return {"prior": ""}
        if isinstance(prior, Aggregate):
            kernel = {"bandwidth": self.bandwidth} if self.aggregate == "kernel" else {}
            return {"prior": "", "aggregate": self.aggregate, "training_codes": len(prior.codes)} | kernel
        described = base.describe(prior.sampling, prior.method)
        return {"prior": self.prior} | {f"prior_{name}": value for name, value in described.items()}


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """The density of all training codes [n, d]: a Gaussian of their moments, or with a bandwidth kernels round them."""

    codes: np.ndarray
    bandwidth: float | None
    seed: int

    def generate(self, count: int, numbers: int) -> np.ndarray:
        """The codes of the images `numbers` ..., each by the seed and its number alone."""
        rngs = [np.random.default_rng([self.seed, i]) for i in range(numbers, numbers + count)]
        picked = self.codes[[rng.integers(len(self.codes)) for rng in rngs]]
        noise = np.stack([rng.standard_normal(self.codes.shape[1]) for rng in rngs])
        if self.bandwidth is not None:
            return (picked + self.bandwidth * self.codes.std(0) * noise).astype(np.float32)
        return (self.codes.mean(0) + noise @ self._factor.T).astype(np.float32)

    @functools.cached_property
    def _factor(self) -> np.ndarray:
        """L with L L^T = the covariance, which may be singular."""
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(self.codes.T, bias=True)))
        return vectors * np.sqrt(np.maximum(values, 0))


def _part(model: Model, prior: "Model | Aggregate | None", first: int, count: int) -> dict[str, np.ndarray]:
    """The images first .. first + count - 1, and their codes."""
    if prior is None:
        return {"images": to_uint8(model.generate(count, numbers=first))}
    z = prior.generate(count, numbers=first)
    return {"images": to_uint8(model.decode_generated(z, numbers=first)), "codes": z}


def prior_config(folder: pathlib.PurePath, place: str) -> Config:
    """The config of the run in `folder`; UserError where that is none, or was never trained."""
    if not run_config.is_run(folder):
        raise UserError(
            f"{place} is no run; give the folder of a trained prior (--config=configs/latent_prior_FILE.py)."
        )
    if not checkpoint.exist(folder) and not weights.is_export(folder):
        raise UserError(f"{place} has no checkpoint; train it first (--workdir={folder} --task=train).")
    return run_config.load(folder)


def open_prior(folder: pathlib.PurePath, model: Model, run: Run) -> Model:
    """The prior in `folder` for the auto-encoder `model` of `run`, held against it.

    Where an imported one has no mean and deviation of its codes, those of the auto-encoder's folder `encode` are taken.
    """
    place = f"tasks.sample.prior={folder}"
    prior_config(folder, place)
    prior = open_run(folder)
    method = model.check_prior(prior, place)
    unsure = f"{place} does not say which auto-encoder its codes are of; taking them for those of {run.root}."
    if method.knows_its_data(prior.variables):
        if not np.any(method.statistics(prior.variables)["fingerprint"]):
            log.warning(unsure)
        return prior
    split = run_config.load(folder).data.split
    path = _codes.path_of(run.root / _codes.FOLDER, run.config.data.name, split)
    if not path.is_file():
        raise UserError(
            f"{place} was imported without the mean and std of its codes: run --task=encode --workdir={run.root} "
            f"--config.tasks.encode.split={split} first."
        )
    log.warning(unsure)
    statistics = _codes.statistics(path, model, f"run --task=encode --workdir={run.root} again.")
    return dataclasses.replace(prior, variables=method.with_statistics(prior.variables, statistics))


Task = Sample
