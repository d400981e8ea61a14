"""`evaluate`'s reconstructions by recipe: each batch is encoded once and decoded by every row."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.inference.edit import between
from diffrep_jax.inference.encoded import Encoded, joined
from diffrep_jax.inference.model import Model
from diffrep_jax.tasks import base
from diffrep_jax.tasks._measures import Instruments, OfSet, Pairs, distances, filled, update
from diffrep_jax.tasks._rows import Row


class Measured:
    """A row in the making: what was measured so far."""

    def __init__(self, row: Row, instruments: Instruments):
        self.row, self.pairs, self.halfway = row, Pairs(instruments), instruments.new_sets()
        self._times: list[float] = []
        self._last: Encoded | None = None  # image of the batch before

    def reconstruct(self, model: Model, encoded: Encoded, pixels: np.ndarray, first: int) -> None:
        """Decode a batch, filled, and take in its images `pixels`; `first` is the number of the first."""
        began = time.perf_counter()
        images = model.decode(encoded, how=self.row.how, numbers=first)
        self._times.append(time.perf_counter() - began)
        self.pairs.update(pixels, to_uint8(images[: len(pixels)]))

    def interpolate(self, model: Model, encoded: Encoded, count: int, first: int, alpha: float) -> None:
        """Take in what lies between each image and the one before it, of which the very first has none."""
        before = joined([encoded[:1] if self._last is None else self._last, encoded[:-1]])
        images = model.decode(between(before, encoded, alpha), how=self.row.how, numbers=first)
        update(self.halfway, to_uint8(images[int(self._last is None) : count]))
        self._last = encoded[count - 1 : count]

    def seconds(self) -> float:
        """Of decoding; the first batch, which compiles, counts as the mean of the others where there are others."""
        steady = self._times[1:] or self._times
        return round(float(np.mean(steady)) * len(self._times), 4)


def measure(
    model: Model,
    batches: Iterable[np.ndarray],
    size: int,
    rows: Iterable[Row],
    instruments: Instruments,
    interpolate_at: float,
) -> tuple[list[Measured], dict[str, OfSet]]:
    """(what was measured of each row, the originals as a set), over uint8 batches of up to `size` images."""
    measured, real, first = [Measured(row, instruments) for row in rows], instruments.new_sets(), 0
    for pixels in batches:
        update(real, pixels)
        codes: dict[Any, Encoded] = {}
        for item in measured:
            how = item.row.how
            upward = (item.row.invert_steps, how.encode, item.row.invert_steps and how)  # what the codes depend on
            if upward not in codes:
                x0 = filled(pixels, size)
                codes[upward] = model.encoded(x0, item.row.invert_steps, item.row.how, first)
            item.reconstruct(model, codes[upward], pixels, first)
            if interpolate_at:
                item.interpolate(model, codes[upward], len(pixels), first, interpolate_at)
        first += len(pixels)
    return measured, real


def entry(measured: Measured, model: Model, real: Mapping[str, OfSet], count: int) -> dict[str, Any]:
    """The row for metrics.json, of `count` images or, where some of these are unreadable, of the others."""
    row = measured.row
    described = base.describe(row.how, model.method, row.invert_steps)
    how = described | base.inverting(row.how, model.method, row.invert_steps)
    images = measured.pairs.count
    left_out = {"unreadable": count - images} if images < count else {}
    return how | {"images": images} | left_out | {"seconds": measured.seconds()} | measured.pairs.numbers(real)


def halfway(measured: Measured, training: Mapping[str, OfSet], at: float) -> dict[str, Any]:
    """The distances of the images half-way between neighbours to the training images, for metrics.json."""
    values = distances(measured.halfway, training)
    return {"interpolate_at": at} | {f"{name}_interpolation": value for name, value in values.items()}
