"""Make new images: from noise alone where the method has no code, else from codes that a prior has made.

With a prior: z_0 = the prior's sample, z = mean + std z_0, x_T from z, decoded. Writes to `<workdir>/sample/`:
grid.png, samples.npz (images uint8 [n, h, w, c], with a prior also codes float32 [n, d]) and metrics.json.
"""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from diffrep_jax import config as configs
from diffrep_jax import pictures
from diffrep_jax.data.datasets import codes
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.methods.base import Unconditional, build
from diffrep_jax.tasks import base
from diffrep_jax.tasks.encode import same_network, witness
from diffrep_jax.train.checkpoint import load_variables
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

COLUMNS = 8


@dataclasses.dataclass(frozen=True)
class Sample(base.DecodingTask):
    """Image i depends on the seed and on i alone.

    Attributes:
      num_images: how many; grid_images: how many of them the picture shows.
      prior: the run of a latent prior, for an auto-encoder; "" for a method without a code.
      prior_sampler, prior_grid, prior_steps, prior_eta: how the prior samples.
    """

    num_images: int
    grid_images: int
    prior: str
    prior_sampler: str
    prior_grid: str
    prior_steps: int
    prior_eta: float

    def __post_init__(self):
        super().__post_init__()
        self._of_prior()  # refuses what the prior cannot be sampled with
        for field in ("num_images", "grid_images"):
            if getattr(self, field) < 1:
                raise UserError(f"tasks.sample.{field} {getattr(self, field)} must be at least 1.")

    def _of_prior(self) -> base.DecodingTask:
        """The prior's own way of sampling; its noise is not that of decoding, for the same seed."""
        own = {"sampler": self.prior_sampler, "grid": self.prior_grid, "steps": self.prior_steps, "eta": self.prior_eta}
        return base.DecodingTask(every_steps=0, churn_step_ratio=0.0, seed=self.seed, batch_size=self.batch_size, **own)

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        model = Inference(method, variables, mesh_of(variables))
        prior = self._open_prior(model, config, workdir)
        settings = self.description(method) | self._describe_prior(prior)
        parts: list[dict[str, np.ndarray]] = []
        starts = range(0, self.num_images, self.batch_size)
        for first in base.progress(starts, len(starts), "sample"):
            parts.append(self._part(model, prior, first, min(self.batch_size, self.num_images - first)))
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        folder = base.output_folder(workdir, "sample")
        shown = arrays["images"][: self.grid_images]
        rows = {f"{i}": shown[i : i + COLUMNS] for i in range(0, len(shown), COLUMNS)}
        pictures.save_png(folder / "grid.png", pictures.labelled_grid(rows))
        np.savez(folder / "samples.npz", **arrays)
        numbers = {"images": len(arrays["images"])}
        base.write_metrics(folder, numbers | settings)
        log.info("%d samples; %s", numbers["images"], folder / "grid.png")
        return numbers

    def _part(self, model: Inference, prior: "Prior | None", first: int, count: int) -> dict[str, np.ndarray]:
        """The images first .. first + count - 1, and their codes."""
        if prior is None:
            return {"images": to_uint8(self.generate(model, count, first))}
        normalised = self._of_prior().generate(prior.model, count, first)
        z = prior.scale.restore(normalised.reshape(count, -1))
        xT = model.endpoint(z, self.seed, first)
        return {"images": to_uint8(self.decode(model, z, xT, first, sampled=True)), "codes": z}

    def _open_prior(self, model: Inference, config: Any, workdir: pathlib.Path) -> "Prior | None":
        """None for a method that needs none; UserError where it makes no images, needs a prior, or this one is none."""
        method = model.method
        if isinstance(method, Unconditional):
            if not method.makes_images:
                raise UserError(
                    f"{workdir} makes codes, no images: sample with its auto-encoder's --workdir and "
                    f"--config.tasks.sample.prior={workdir}."
                )
            if self.prior:
                raise UserError(
                    f"tasks.sample.prior={self.prior} is of no use: the model in {workdir} has no codes; leave it out."
                )
            return None
        if not self.prior:
            raise UserError(
                f"An auto-encoder needs codes to start from: run --task=encode --workdir={workdir}, then train a prior "
                f"(--config=configs/latent_prior_FILE.py --data_dir={workdir}/encode --workdir=PRIOR), then add "
                "--config.tasks.sample.prior=PRIOR."
            )
        return open_prior(pathlib.Path(self.prior), model, config, workdir)

    def _describe_prior(self, prior: "Prior | None") -> dict[str, Any]:
        if prior is None:
            return {"prior": ""}
        settings = self._of_prior().description(prior.model.method)
        told = ("sampler", "grid", "steps", "eta", "evaluations")
        return {"prior": self.prior} | {f"prior_{name}": settings[name] for name in told}


@dataclasses.dataclass(frozen=True)
class Prior:
    """A trained prior and the scale of the codes that it was trained on."""

    model: Inference
    scale: codes.Scale


def open_prior(run: pathlib.Path, model: Inference, config: Any, workdir: pathlib.Path) -> Prior:
    """The prior in `run` of the auto-encoder `model`, whose own run is `workdir`.

    The scale is what the prior's run has kept, or for an imported one what `--task=encode` has found. Raises UserError
    where the run is no prior, or that of another auto-encoder.
    """
    place = f"tasks.sample.prior={run}"
    if not configs.is_run(run):
        raise UserError(
            f"{place} is no run; give the folder of a trained prior (--config=configs/latent_prior_FILE.py)."
        )
    prior_config = configs.load_run(run)
    method = build(prior_config.method)
    if not isinstance(method, Unconditional) or method.makes_images:
        raise UserError(f"{place} is a {prior_config.method.name} run, no prior; give one of latent_prior.")
    d = model.method.latent_dim
    if method.channels != d:
        raise UserError(
            f"{place} makes codes of {method.channels} dimensions, {workdir} takes {d}; give its own prior."
        )
    kept, encoded = run / codes.SCALE_FILE, workdir / "encode" / f"{config.data.name}_{prior_config.data.split}.npz"
    file = next((file for file in (kept, encoded) if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{place} was imported without the mean and std of its codes: run --task=encode --workdir={workdir} "
            f"--config.tasks.encode.split={prior_config.data.split} first."
        )
    scale = codes.read_scale(file)
    if scale.witness is None:
        log.warning("%s does not tell which auto-encoder its codes are of; taking them for those of %s.", file, workdir)
    elif not same_network(scale.witness, witness(model, 1)):
        raise UserError(
            f"{file} is of another auto-encoder's codes, or {workdir} was trained since: encode again and train a new "
            "prior on that."
        )
    return Prior(Inference(method, load_variables(run, method, model.mesh), model.mesh), scale)


Task = Sample
