"""Counterfactuals of two images: what each would be with some blocks of the other's code (DiTi, section 5.2).

For a range of blocks that slice of z goes from one image's to the other's by lerp, the rest of z stays; the stochastic
codes go by slerp. A method whose code is not built of blocks has one block, all of z.

Writes to `<workdir>/counterfactual/`: grid.png (two rows a range, one from each image), arrays.npz and metrics.json.
"""

import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from diffrep_jax import pictures
from diffrep_jax.data.transforms import to_float
from diffrep_jax.encoded import Encoded, between
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import image as metrics
from diffrep_jax.tasks import base
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Counterfactual(base.ImageTask):
    """The fields beside those of an `ImageTask`.

    Attributes:
      first, second: an image file, or an index into `split`.
      ranges: (first block, number of blocks) of each; () for all blocks as one.
      points: of each way, both ends included.
    """

    first: str
    second: str
    ranges: tuple[tuple[int, int], ...]
    points: int

    def __post_init__(self):
        super().__post_init__()
        if self.points < 2:
            raise UserError(f"tasks.counterfactual.points {self.points} must be at least 2, the two ends.")
        for item in self.ranges:
            if not (isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(n, int) for n in item)):
                raise UserError(
                    f"tasks.counterfactual.ranges holds {item}; write ((first block, number of blocks), ...), "
                    "such as ((2,4),(16,8))."
                )

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        model = Inference(method, variables, mesh_of(variables))
        model.need_codes()
        slices = self.slices(method.block_ends)
        ends = np.stack([self.image(name, method, config) for name in (self.first, self.second)])
        encoded = self.encode(model, to_float(ends))
        ways = {
            f"{blocks}, {name}": _way(start, end, dimensions, self.points)
            for blocks, dimensions in slices.items()
            for name, start, end in (("1 to 2", encoded[:1], encoded[1:]), ("2 to 1", encoded[1:], encoded[:1]))
        }
        images = self.decode_points(model, [point for way in ways.values() for point in way], "counterfactual")
        rows = dict(zip(ways, images.reshape(len(ways), self.points, *images.shape[1:]), strict=True))
        return self._write(base.output_folder(workdir, "counterfactual"), ends, rows, method)

    def slices(self, block_ends: np.ndarray) -> dict[str, slice]:
        """{name of a range: its dimensions of z}; raises UserError for blocks that there are not."""
        edges = [0, *block_ends.tolist()]
        count = len(block_ends)
        found = {}
        for start, width in self.ranges or ((0, count),):
            if not (0 <= start and 1 <= width and start + width <= count):
                raise UserError(
                    f"tasks.counterfactual.ranges asks for {width} blocks from {start} on; this model has {count}, "
                    "numbered from 0."
                )
            last = start + width - 1
            name = f"block {start}" if width == 1 else f"blocks {start}-{last}"
            found[f"{name} of {count}"] = slice(edges[start], edges[last + 1])
        return found

    def _write(
        self, folder: pathlib.Path, ends: np.ndarray, rows: dict[str, np.ndarray], method: Any
    ) -> dict[str, float]:
        first = next(iter(rows.values()))
        numbers = {"mse_of_first": float(metrics.mse(ends[:1] / 255.0, first[:1] / 255.0)[0])}
        changes = {name: float(metrics.mse(row[:1] / 255.0, row[-1:] / 255.0)[0]) for name, row in rows.items()}
        strips = {
            name: np.concatenate([own, row, other])
            for (name, row), (own, other) in zip(
                rows.items(), [(ends[:1], ends[1:]), (ends[1:], ends[:1])] * (len(rows) // 2), strict=True
            )
        }
        shares = [f"{alpha:g}" for alpha in np.linspace(0, 1, self.points).round(3)]
        columns = ["input", *shares, "other"]
        pictures.save_png(folder / "grid.png", pictures.labelled_grid(strips, columns))
        np.savez(folder / "arrays.npz", ends=ends, images=np.stack(list(rows.values())), names=np.array(list(rows)))
        ends_named = {"first": self.first, "second": self.second, "points": self.points, "split": self.split}
        base.write_metrics(folder, numbers | {"mse_of_change": changes} | ends_named | self.description(method))
        log.info("Counterfactuals of %s and %s; %s", self.first, self.second, folder / "grid.png")
        return numbers


def _way(start: Encoded, end: Encoded, dimensions: slice, points: int) -> list[Encoded]:
    return [between(start, end, alpha, dimensions) for alpha in np.linspace(0, 1, points)]


Task = Counterfactual
