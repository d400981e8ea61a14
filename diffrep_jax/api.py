"""`diffrep_jax.load(run)`: a trained auto-encoder for notebooks and scripts."""

import os
import pathlib
from typing import Any

import jax
import numpy as np

from diffrep_jax import config as configs
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.methods import base
from diffrep_jax.train.checkpoint import load_variables
from diffrep_jax.train.sharding import make_mesh


class AutoEncoder:
    """A trained run. Images in: uint8, or floats in [-1, 1], [n, h, w, c]; images out: float32 in [-1, 1].

    Each function is compiled once for a shape, and a batch is split over the local devices. Inputs whose shape or
    range do not fit raise UserError.
    """

    def __init__(self, config: Any, model: Inference):
        self.config = config
        self._model = model
        self.image_size: int = model.method.image_size
        self.channels: int = model.method.channels
        self.latent_dim: int = model.method.latent_dim

    def encode(self, images: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
        """The codes z [n, d]. A stochastic encoder answers its mean, or mu + sigma noise for `noise` [n, d]."""
        images = self._images("images", images)
        if noise is not None:
            noise = self._shaped("noise", noise, (len(images), self.latent_dim))
        return self._model.encode(images, noise)

    def endpoint(self, z: np.ndarray, seed: int = 0) -> np.ndarray:
        """x_T [n, h, w, c], where decoding starts; `seed` where the method draws it."""
        return self._model.endpoint(self._codes(z), seed)

    def decode(
        self,
        z: np.ndarray,
        x_T: np.ndarray | None = None,
        sampler: str = "heun",
        steps: int = 40,
        churn_step_ratio: float = 0.0,
        seed: int = 0,
        noise: np.ndarray | None = None,
        grid: str = "karras",
        eta: float = 0.0,
        stochastic_code: np.ndarray | None = None,
    ) -> np.ndarray:
        """Images from codes; x_T None: their own endpoint. `noise` [n, steps, h, w, c] replaces the drawn noise.

        stochastic_code: what `invert` found, [n, h, w, c]; with it an image comes back as it was.
        """
        z = self._codes(z)
        shape = (len(z), self.image_size, self.image_size, self.channels)
        x_T = self._model.endpoint(z, seed) if x_T is None else self._shaped("x_T", x_T, shape)
        if noise is not None:
            noise = self._shaped("noise", noise, (len(z), steps, *shape[1:]))
        return self._model.decode(
            *(z, x_T),
            sampler=sampler,
            grid=grid,
            steps=steps,
            churn_step_ratio=churn_step_ratio,
            eta=eta,
            seed=seed,
            noise=noise,
            stochastic_code=None
            if stochastic_code is None
            else self._shaped("stochastic_code", stochastic_code, shape),
        )

    def invert(
        self,
        images: np.ndarray,
        z: np.ndarray | None = None,
        steps: int = 40,
        sampler: str = "exponential",
        grid: str = "karras",
    ) -> np.ndarray:
        """The stochastic code [n, h, w, c]: what `decode` needs beside z to give the images back; z None: their codes.

        For PDAE and DiTi it is their inferred x_T; for DBAE, what the state next to x_T has beside x_T.
        """
        images = self._images("images", images)
        z = self._model.encode(images) if z is None else self._shaped("z", z, (len(images), self.latent_dim))
        xT = self._model.endpoint(z)
        return self._model.invert(images, z, xT, sampler=sampler, grid=grid, steps=steps)

    def denoise(self, x_t: np.ndarray, t: Any, z: np.ndarray, x_T: np.ndarray) -> np.ndarray:
        """D(x_t, t), unclipped; t a number or one for each image [n], in the process's [t_min, t_max]."""
        z = self._codes(z)
        shape = (len(z), self.image_size, self.image_size, self.channels)
        times = np.broadcast_to(np.asarray(t, np.float32), (len(z),))
        process = self._model.method.process
        low, high = process.t_data, process.t_max
        if times.min() < low or times.max() > high:
            raise UserError(f"t {times.min():g} to {times.max():g} is outside the process's [{low:g}, {high:g}].")
        return self._model.denoise(self._shaped("x_t", x_t, shape), times, z, self._shaped("x_T", x_T, shape))

    def _images(self, name: str, images: Any) -> np.ndarray:
        """Checked and in [-1, 1]."""
        images = np.asarray(images)
        self._check_shape(name, images, (None, self.image_size, self.image_size, self.channels))
        if images.dtype == np.uint8:
            return images.astype(np.float32) / 127.5 - 1
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"{name} has dtype {images.dtype}; give uint8, or floats in [-1, 1].")
        if len(images) and not (images.min() >= -1.001 and images.max() <= 1.001):
            raise UserError(f"{name} lies in [{images.min():g}, {images.max():g}]; give uint8, or floats in [-1, 1].")
        return images.astype(np.float32)

    def _codes(self, z: Any) -> np.ndarray:
        return self._shaped("z", z, (None, self.latent_dim))

    def _shaped(self, name: str, array: Any, shape: tuple[int | None, ...]) -> np.ndarray:
        array = np.asarray(array, np.float32)
        self._check_shape(name, array, shape)
        return array

    def _check_shape(self, name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
        fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
        if not fits or array.shape[0] == 0:
            wanted = ", ".join("n" if n is None else str(n) for n in shape)
            raise UserError(f"{name} has the shape {array.shape}; this model takes [{wanted}] with n >= 1.")


def load(run: str | os.PathLike[str], params: str = "ema") -> AutoEncoder:
    """The auto-encoder of a run's folder: its averaged weights, or with params="live" the raw ones.

    Raises UserError where the folder holds no run or no checkpoint that fits its config.
    """
    if params not in ("ema", "live"):
        raise UserError(f"params '{params}' is unknown; choose 'ema' (averaged) or 'live'.")
    workdir = pathlib.Path(run)
    config = configs.load_run(workdir)
    method = base.build(config.method)
    if not isinstance(method, base.AutoEncoder):
        raise UserError(f"{workdir} holds a {config.method.name} run, which has no codes: not an auto-encoder.")
    mesh = make_mesh(devices=jax.local_devices())
    return AutoEncoder(config, Inference(method, load_variables(workdir, method, mesh, params), mesh))
