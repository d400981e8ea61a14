"""What `evaluate` measures: running sums over pairs of images, and moments of Inception's features."""

import dataclasses
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from diffrep_jax import weights
from diffrep_jax.data.transforms import to_float, to_uint8
from diffrep_jax.encoded import Encoded, between
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import fid, image, inception, lpips
from diffrep_jax.tasks.base import ImageTask

log = logging.getLogger(__name__)

PIXELS = {"mse": image.mse, "psnr": image.psnr, "ssim": image.ssim, "ssim_official": image.ssim_official}

Network = Callable[..., np.ndarray]


@dataclasses.dataclass(frozen=True)
class Networks:
    """LPIPS's distance and Inception's features, of uint8 images; None where `missing` says why not, in one line."""

    lpips: Network | None
    inception: Network | None
    missing: Mapping[str, str]


def load_networks(wanted: Mapping[str, bool], weights_dir: pathlib.Path | None, image_size: int) -> Networks:
    """wanted: {"lpips": whether, "fid": whether}. Raises UserError where `weights_dir` is no folder."""
    if weights_dir is not None and not weights_dir.is_dir():
        raise UserError(f"--weights_dir {weights_dir} is no folder; give the one of the weight files, or leave it out.")
    found: dict[str, Network] = {}
    missing: dict[str, str] = {}
    loaders = {
        "lpips": (weights.lpips_weights, lpips.distance),
        "fid": (weights.inception_weights, inception.features),
    }
    for name, (load, function) in loaders.items():
        if not wanted[name]:
            missing[name] = f"not asked for: tasks.evaluate.{name} is False"
        elif name == "lpips" and image_size < lpips.SMALLEST:
            missing[name] = f"the images have {image_size} pixels a side, AlexNet needs {lpips.SMALLEST}"
        else:
            try:
                found[name] = _on_pixels(function, load(weights_dir))
            except UserError as error:
                missing[name] = f"no weights: {error}"
                log.warning("No %s: %s", name, error)
    return Networks(found.get("lpips"), found.get("fid"), missing)


def _on_pixels(function: Any, params: Any) -> Network:
    """`function(params, images, ...)`, compiled, for uint8 images; batches are filled up to 2^k images."""
    compiled, params = jax.jit(function), jax.device_put(params)

    def call(*images: np.ndarray) -> np.ndarray:
        count = len(images[0])
        size = 1 << (count - 1).bit_length()
        return np.asarray(compiled(params, *(to_float(filled(part, size)) for part in images)))[:count]

    return call


class Features:
    """The moments of a set of images; nothing where there is no Inception."""

    def __init__(self, networks: Networks):
        self._inception = networks.inception
        self.moments = fid.Moments.empty(inception.FEATURES if networks.inception else 1)

    def update(self, images: np.ndarray) -> None:
        """Take in uint8 [n, h, w, c], n may be 0."""
        if self._inception is not None and len(images):
            self.moments.update(self._inception(images))

    def distance(self, reference: "Features") -> float | None:
        if self._inception is None:
            return None
        return fid.frechet_distance(reference.moments, self.moments)


class Pairs:
    """Sums over pairs of images, and the features of the second ones."""

    def __init__(self, networks: Networks):
        self._lpips = networks.lpips
        self._sums = dict.fromkeys([*PIXELS, *(["lpips"] if networks.lpips else [])], 0.0)
        self.features = Features(networks)
        self.count = 0

    def update(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in images x and what became of them y, uint8 [n, h, w, c]."""
        for name, measure in PIXELS.items():
            self._sums[name] += float(measure(x / 255, y / 255).sum())
        if self._lpips is not None:
            self._sums["lpips"] += float(self._lpips(x, y).sum(dtype=np.float64))
        self.features.update(y)
        self.count += len(x)

    def numbers(self, reference: Features) -> dict[str, float | None]:
        """The means over all pairs and the Frechet distance; None for what is missing, or infinite (PSNR)."""
        means = {"lpips": None} | {name: total / self.count for name, total in self._sums.items()}
        finite = {name: value if value is None or math.isfinite(value) else None for name, value in means.items()}
        return finite | {"fid": self.features.distance(reference)}


@dataclasses.dataclass
class Row:
    """A line of the report in the making: its sampler, and what was measured so far."""

    task: ImageTask
    pairs: Pairs
    between: Features
    times: list[float] = dataclasses.field(default_factory=list)
    last: Encoded | None = None  # image of the batch before

    def reconstruct(self, model: Inference, encoded: Encoded, pixels: np.ndarray, first: int) -> None:
        """Decode a batch, filled, and take in its images `pixels`; `first` is the number of the first."""
        began = time.perf_counter()
        images = self.task.decode_encoded(model, encoded, first)
        self.times.append(time.perf_counter() - began)
        self.pairs.update(pixels, to_uint8(images[: len(pixels)]))

    def interpolate(self, model: Inference, encoded: Encoded, count: int, first: int, alpha: float) -> None:
        """Take in what lies between each image and the one before it, of which the very first has none."""
        before = _joined(encoded[:1] if self.last is None else self.last, encoded[:-1])
        images = self.task.decode_encoded(model, between(before, encoded, alpha), first)
        self.between.update(to_uint8(images[int(self.last is None) : count]))
        self.last = encoded[count - 1 : count]

    def seconds(self) -> float:
        """Of decoding; the first batch, which compiles, counts as the mean of the others where there are others."""
        steady = self.times[1:] or self.times
        return round(float(np.mean(steady)) * len(self.times), 4)


def _joined(one: Encoded, other: Encoded) -> Encoded:
    codes = [part.stochastic_code for part in (one, other) if part.stochastic_code is not None]
    return Encoded(np.concatenate([one.z, other.z]), np.concatenate(codes) if codes else None)


def filled(x: np.ndarray, size: int) -> np.ndarray:
    """A short batch with its first image repeated, so that nothing is compiled twice."""
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])


def compare(originals: Iterable[np.ndarray], made: Iterable[np.ndarray], networks: Networks) -> tuple[Pairs, Features]:
    """Batch by batch, uint8 [n, h, w, 1 or 3]; also the features of the originals. Ends where one of them ends.

    Raises UserError for sizes that differ.
    """
    pairs, real = Pairs(networks), Features(networks)
    for x, y in zip(originals, made, strict=False):
        if len(x) != len(y):
            break
        if x.shape[1:3] != y.shape[1:3]:
            sizes = ["{}x{}".format(*image.shape[2:0:-1]) for image in (x, y)]
            raise UserError(f"The original images are {sizes[0]}, those to compare {sizes[1]}; make them one size.")
        channels = max(x.shape[-1], y.shape[-1])  # grey is repeated
        x, y = (np.broadcast_to(image, (*image.shape[:3], channels)) for image in (x, y))
        pairs.update(x, y)
        real.update(x)
    return pairs, real


def line(row: Mapping[str, Any]) -> str:
    """A row of metrics.json for the log."""
    count = row["evaluations"]
    how = f"{row['sampler']}, {count} evaluation{'s'[: count > 1]}" if row["sampler"] else row["reconstructions"]
    shown = ("mse", "psnr", "ssim", "lpips", "fid", "fid_interpolation")
    values = [f"{name} {row[name]:.5g}" for name in shown if isinstance(row.get(name), float)]
    return f"{how}, {row['images']} images: {', '.join(values)}"


def plotted(report: Mapping[str, Any]) -> dict[str, float]:
    """What a training run plots, of the first row."""
    measures = ("mse", "psnr", "ssim", "ssim_official", "lpips", "fid", "fid_interpolation")
    found = (report["rows"] or [{}])[0] | report.get("disentanglement", {})
    return {name: found[name] for name in (*measures, "tad", "attributes") if isinstance(found.get(name), float)}
