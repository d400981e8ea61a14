"""Counterfactuals of two images: what each would be with some blocks of the other's code (DiTi, section 5.2).

For a range of blocks that slice of z goes from one image's to the other's by lerp, the rest of z stays; the stochastic
codes go by slerp. A method whose code is not built of blocks has one block, all of z; `blocks` cuts it into equal ones,
as PDAE's code is compared with DiTi's.

Writes to `<workdir>/counterfactual/`: grid.png (two rows a range, one from each image), arrays.npz and metrics.json.
"""

import dataclasses
import logging

import numpy as np

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.fields import PathText, check_numbers
from diffrep_jax.inference import edit
from diffrep_jax.inference.encoded import joined
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import image as metrics
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.tasks import _pictures, base

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Counterfactual(base.PhotoTask):
    """The fields besides those of a `PhotoTask`.

    Attributes:
      first, second: an image file, or the number of one of the images.
      blocks: how many equal ones z is cut into; 0: the method's own.
      ranges: (first block, number of blocks) of each; () for all blocks as one.
      points: of each way, both ends included.
    """

    first: PathText = "0"
    second: PathText = "1"
    blocks: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    points: int = 5

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, "tasks.counterfactual", {"blocks": 0})
        if self.points < 2:
            raise UserError(f"tasks.counterfactual.points {self.points} must be at least 2, the two ends.")
        for item in self.ranges:
            if not (isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(n, int) for n in item)):
                raise UserError(
                    f"tasks.counterfactual.ranges holds {item}; write ((first block, number of blocks), ...), "
                    "such as ((2,4),(16,8))."
                )

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        self._slices_and_ends(model, run)

    def _slices_and_ends(self, model: Model, run: Run) -> tuple[dict[str, slice], np.ndarray]:
        block_ends = edit.block_ends(model.auto_encoder.block_ends, self.blocks, "tasks.counterfactual.blocks")
        ends = [self.image(field, model, run.config) for field in ("first", "second")]
        return self.slices(block_ends), np.stack(ends)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        slices, ends = self._slices_and_ends(model, run)
        self.warn_of_framing(run.config, (self.first, self.second))
        encoded = self.encode(model, ends)
        ways = {
            f"{blocks}, {name}": edit.interpolate(start, end, self.points, dimensions)
            for blocks, dimensions in slices.items()
            for name, start, end in (("1 to 2", encoded[:1], encoded[1:]), ("2 to 1", encoded[1:], encoded[:1]))
        }
        images = to_uint8(self.decode_points(model, joined(list(ways.values())), "counterfactual"))
        rows = dict(zip(ways, images.reshape(len(ways), self.points, *images.shape[1:]), strict=True))
        return self._write(run, ends, rows, model)

    def slices(self, block_ends: np.ndarray) -> dict[str, slice]:
        """{name of a range: its dimensions of z}; raises UserError for blocks that there are not."""
        count = len(block_ends)
        named = {}
        for start, width in self.ranges or ((0, count),):
            name = f"block {start}" if width == 1 else f"blocks {start}-{start + width - 1}"
            try:
                named[f"{name} of {count}"] = edit.block_dimensions(block_ends, start, width)
            except UserError as error:
                raise UserError(f"tasks.counterfactual.ranges={self.ranges}: {error}") from None
        return named

    def _write(self, run: Run, ends: np.ndarray, rows: dict[str, np.ndarray], model: Model) -> dict[str, float]:
        first = next(iter(rows.values()))
        numbers = {"mse_of_first": float(metrics.mse(ends[:1] / 255.0, first[:1] / 255.0)[0])}
        changes = {name: float(metrics.mse(row[:1] / 255.0, row[-1:] / 255.0)[0]) for name, row in rows.items()}
        own_and_other = [(ends[:1], ends[1:]), (ends[1:], ends[:1])] * (len(rows) // 2)
        strips = {
            name: np.concatenate([own, row, other])
            for (name, row), (own, other) in zip(rows.items(), own_and_other, strict=True)
        }
        columns = ["input", *(f"{alpha:g}" for alpha in np.linspace(0, 1, self.points).round(3)), "other"]
        folder = run.task_folder("counterfactual")
        _pictures.save_png(folder / "grid.png", _pictures.labelled_grid(strips, columns))
        images, names = np.stack(list(rows.values())), np.array(list(rows))
        write_arrays(folder / "arrays.npz", ends=ends, images=images, names=names)
        pair = {"first": self.first, "second": self.second, "points": self.points, "split": self.split}
        description = {"mse_of_change": changes, "blocks": self.blocks} | pair | self.description(model)
        run.write_numbers("counterfactual", numbers | description)
        log.info("Counterfactuals of %s and %s; %s", self.first, self.second, folder / "grid.png")
        return numbers


Task = Counterfactual
