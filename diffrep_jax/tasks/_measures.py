"""What `evaluate` measures: one table; of pairs of images, or of sets of them. A new measure is one entry."""

import dataclasses
import logging
import math
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from diffrep_jax.data.transforms import to_float
from diffrep_jax.errors import UserError
from diffrep_jax.metrics import fid, image, inception, lpips, manifold
from diffrep_jax.tasks import _weights

log = logging.getLogger(__name__)

KEPT = 50_000  # images whose features are kept, the number that papers generate

OfPairs = Callable[[np.ndarray, np.ndarray], np.ndarray]  # uint8 [n, h, w, c] twice -> [n]


class OfSet(Protocol):
    """What is kept of a set of images, to measure it against another one."""

    @property
    def count(self) -> int: ...

    def update(self, images: np.ndarray) -> None:
        """Take in uint8 [n, h, w, c]."""
        ...

    def distance(self, reference: Any) -> float: ...


@dataclasses.dataclass(frozen=True)
class Measure:
    """open(folder of weights) gives the measure; UserError where its weights are nowhere.

    pairs: it is a mean over pairs of images (`OfPairs`), else a distance of two sets (a maker of `OfSet`).
    smallest: the least number of pixels a side.
    """

    open: Callable[[pathlib.Path | None], Any]
    pairs: bool = True
    smallest: int = 1


def _of_pixels(function: OfPairs) -> Measure:
    return Measure(lambda folder: lambda x, y: function(x / 255, y / 255))


def _lpips(folder: pathlib.Path | None) -> OfPairs:
    return _on_pixels(lpips.distance, _weights.lpips_weights(folder))


def _fid(folder: pathlib.Path | None) -> Callable[[], OfSet]:
    params = _weights.inception_weights(folder)
    features = _on_pixels(inception.features, params)
    return lambda: Moments(features, params)


MEASURES = {
    "mse": _of_pixels(image.mse),
    "psnr": _of_pixels(image.psnr),
    "ssim": _of_pixels(image.ssim),
    "ssim_official": _of_pixels(image.ssim_official),
    "lpips": Measure(_lpips, smallest=lpips.SMALLEST),
    "fid": Measure(_fid, pairs=False),
}


class Moments:
    """The moments of the features of a set of images, for the Frechet distance; on request the features themselves."""

    def __init__(self, features: Callable[..., np.ndarray], params: Any):
        self._features, self._params = features, params
        self._moments = fid.Moments.empty(inception.FEATURES)
        self._kept: list[np.ndarray] | None = None

    def keep(self) -> None:
        """From now on also keep features, of the first KEPT images at most."""
        self._kept = []

    @property
    def count(self) -> int:
        return self._moments.count

    def update(self, images: np.ndarray) -> None:
        if len(images):
            features = self._features(images)
            if self._kept is not None and self.count < KEPT:
                self._kept.append(features[: KEPT - self.count])
            self._moments.update(features)

    def distance(self, reference: Any) -> float:
        return fid.frechet_distance(reference._moments, self._moments)

    def quality(self, reference: "Moments") -> dict[str, float]:
        """Precision, recall, inception score of what was kept; without what takes more images, or the classes."""
        features, real = (np.concatenate(one._kept or [np.zeros((0, 1))]) for one in (self, reference))
        numbers: dict[str, float] = {}
        if min(len(features), len(real)) > manifold.NEIGHBOUR:
            numbers["precision"], numbers["recall"] = manifold.precision_recall(real, features)
            numbers |= {"features": len(features), "training_features": len(real)}
        if len(features) and "classes" in self._params:
            probabilities = np.asarray(inception.probabilities(self._params, jax.numpy.asarray(features)))
            numbers["inception_score"] = manifold.inception_score(probabilities)
        return numbers


@dataclasses.dataclass(frozen=True)
class Instruments:
    """The measures that are at hand, by name; of the others, `missing` says why not, in one line."""

    pairs: Mapping[str, OfPairs]
    sets: Mapping[str, Callable[[], OfSet]]
    missing: Mapping[str, str]

    def new_sets(self) -> dict[str, OfSet]:
        return {name: make() for name, make in self.sets.items()}


def open_instruments(without: Collection[str], weights_dir: pathlib.Path | None, image_size: int) -> Instruments:
    """All of MEASURES but `without`. Raises UserError where `weights_dir` is no folder."""
    if weights_dir is not None and not weights_dir.is_dir():
        raise UserError(f"--weights_dir {weights_dir} is no folder; give the one of the weight files, or leave it out.")
    opened: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, measure in MEASURES.items():
        if name in without:
            missing[name] = "not asked for: it is among tasks.evaluate.without"
        elif image_size < measure.smallest:
            missing[name] = f"the images have {image_size} pixels a side, it needs {measure.smallest}"
        else:
            try:
                opened[name] = measure.open(weights_dir)
            except UserError as error:
                missing[name] = f"no weights: {error}"
                log.warning("No %s: %s", name, error)
    pairs, sets = ({n: o for n, o in opened.items() if MEASURES[n].pairs is kind} for kind in (True, False))
    return Instruments(pairs, sets, missing)


def _on_pixels(function: Any, params: Any) -> Callable[..., np.ndarray]:
    """`function(params, images, ...)`, compiled, for uint8 images; batches are filled up to 2^k images."""
    compiled, params = jax.jit(function), jax.device_put(params)

    def call(*images: np.ndarray) -> np.ndarray:
        count = len(images[0])
        size = 1 << (count - 1).bit_length()
        return np.asarray(compiled(params, *(to_float(filled(part, size)) for part in images)))[:count]

    return call


class Pairs:
    """Sums over pairs of images, and what is kept of the second ones as a set."""

    def __init__(self, instruments: Instruments):
        self._measures = instruments.pairs
        self._sums = dict.fromkeys(instruments.pairs, 0.0)
        self.sets = instruments.new_sets()
        self.count = 0

    def update(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in images x and what became of them y, uint8 [n, h, w, c]."""
        for name, measure in self._measures.items():
            self._sums[name] += float(measure(x, y).sum(dtype=np.float64))
        update(self.sets, y)
        self.count += len(x)

    def numbers(self, reference: Mapping[str, OfSet]) -> dict[str, Any]:
        """The means over all pairs and the distances of sets; None for what is missing, or infinite (PSNR).

        "not_finite" has the names of the latter, where there are any.
        """
        means = {name: total / self.count for name, total in self._sums.items()}
        values = dict.fromkeys(MEASURES) | means | distances(self.sets, reference)
        infinite = [name for name, value in values.items() if value is not None and not math.isfinite(value)]
        return values | dict.fromkeys(infinite) | ({"not_finite": infinite} if infinite else {})


def keep(sets: Mapping[str, OfSet]) -> None:
    """Have the sets keep what `quality` needs."""
    for kept in sets.values():
        if isinstance(kept, Moments):
            kept.keep()


def quality(sets: Mapping[str, OfSet], reference: Mapping[str, OfSet]) -> dict[str, float]:
    """What the features say of generated images besides a distance."""
    numbers: dict[str, float] = {}
    for name, kept in sets.items():
        real = reference[name]
        if isinstance(kept, Moments) and isinstance(real, Moments):
            numbers |= kept.quality(real)
    return numbers


def update(sets: Mapping[str, OfSet], images: np.ndarray) -> None:
    for kept in sets.values():
        kept.update(images)


def distances(sets: Mapping[str, OfSet], reference: Mapping[str, OfSet]) -> dict[str, float | None]:
    """{measure: distance of two sets}, None for those that are missing."""
    of_sets = dict.fromkeys(name for name, measure in MEASURES.items() if not measure.pairs)
    return of_sets | {name: kept.distance(reference[name]) for name, kept in sets.items()}


def filled(x: np.ndarray, size: int) -> np.ndarray:
    """A short batch with its first image repeated, so that nothing is compiled twice."""
    return np.concatenate([x, np.repeat(x[:1], size - len(x), axis=0)])


def compare(
    originals: Iterable[np.ndarray], made: Iterable[np.ndarray], instruments: Instruments
) -> tuple[Pairs, dict[str, OfSet]]:
    """Batch by batch, uint8 [n, h, w, 1 or 3]; also the originals as a set. Ends where one of them ends.

    Raises UserError for sizes that differ.
    """
    pairs, real = Pairs(instruments), instruments.new_sets()
    for x, y in zip(originals, made, strict=False):
        if len(x) != len(y):
            break
        if x.shape[1:3] != y.shape[1:3]:
            sizes = ["{}x{}".format(*image.shape[2:0:-1]) for image in (x, y)]
            raise UserError(f"The original images are {sizes[0]}, those to compare {sizes[1]}; make them one size.")
        channels = max(x.shape[-1], y.shape[-1])  # grey is repeated
        x, y = (np.broadcast_to(image, (*image.shape[:3], channels)) for image in (x, y))
        pairs.update(x, y)
        update(real, x)
    return pairs, real
