"""What the web page does with a run, without the page: photos in, pictures and a line about them out.

Pictures are uint8 [h, w, c] of the model's size; the page enlarges them.
"""

import dataclasses
import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax import sections
from diffrep_jax.data import located, open_dataset
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import edit, heads
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.inference.starts import starts
from diffrep_jax.methods.base import AutoEncoder
from diffrep_jax.readout.head import Head, signed
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs import hub, layout
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.tasks import base
from diffrep_jax.tasks.sample import open_prior
from diffrep_jax.types import Config

EXAMPLES = 16  # at most
EQUAL_BLOCKS = 8  # of a code that has no blocks of its own
KEPT = 64  # encoded photos


@dataclasses.dataclass(frozen=True)
class Steps:
    """How long to compute: evaluations of a decoding, in steps, and of the way up to the stochastic code; 0: none."""

    decode: int
    invert: int


@dataclasses.dataclass(frozen=True)
class Answer:
    """Named pictures, in order, and what it took."""

    pictures: Mapping[str, np.ndarray]
    line: str
    codes: np.ndarray | None = None


class Studio:
    """An opened run: its model, heads, prior and examples. All noise is that of image 0, so pictures vary with codes.

    Raises UserError where the folder is no run, or makes no images.
    """

    def __init__(
        self,
        workdir: str,
        data_dir: str | None = None,
        prior: str | None = None,
        fit_heads: bool = False,
    ):
        self.folder = layout.as_path(hub.fetch(workdir) if hub.is_address(workdir) else workdir)
        self.config: Config = sections.complete(run_config.load(self.folder))
        self.model: Model = open_run(self.folder, config=self.config)
        self.has_codes = isinstance(self.model.method, AutoEncoder)
        if not self.has_codes and not getattr(self.model.method, "makes_images", False):
            raise UserError(f"{workdir} makes codes, no images: give its auto-encoder's, and this one as --prior.")
        self._manipulate: Any = base.build("manipulate", self.config.tasks.manipulate, {})
        self._data_dir = None if data_dir is None else located(data_dir)
        run = layout.Run.at(self.folder, self.config)
        if fit_heads and self.has_codes and not heads.stored(self.folder, self.model):
            base.build("probe", self.config.tasks.probe, {"data_dir": self._data_dir}).run(self.model, run)
        self.heads: dict[str, Head] = self._single_heads() if self.has_codes else {}
        prior = prior or str(self.config.tasks.sample.prior)
        self.prior = open_prior(layout.as_path(prior), self.model, run) if prior and self.has_codes else None
        self.encode = functools.lru_cache(maxsize=KEPT)(self._encode)

    # What there is

    @property
    def makes_images(self) -> bool:
        """Whether `sample` has an answer."""
        return self.prior is not None or not self.has_codes

    @property
    def usual(self) -> Steps:
        """As the run's config says."""
        return Steps(int(self.config.sampling.steps), int(self.config.tasks.interpolate.invert_steps))

    @property
    def reach(self) -> float:
        """How far a slider of an attribute goes either way."""
        return float(max(abs(scale) for scale in self._manipulate.scales)) or 0.6

    @property
    def blocks(self) -> list[str]:
        """The names of the parts that codes can exchange."""
        ends = [0, *self._block_ends()]
        parts = zip(ends, ends[1:], strict=False)
        return [str(first) if last == first + 1 else f"{first}-{last - 1}" for first, last in parts]

    @property
    def title(self) -> str:
        size, name = self.model.image_size, type(self.model.method).__name__
        code = f", codes of {self.model.latent_dim} numbers" if self.has_codes else ""
        return f"{name} on {self.config.data.name}, {size} x {size}{code}"

    def examples(self) -> list[np.ndarray]:
        """Images to begin with: those next to exported weights, else the first of the test split; none where neither
        can be opened."""
        size, channels = self.model.image_size, self.model.channels
        try:
            if (self.folder / layout.EXAMPLES).is_dir():
                folder = os.fspath(self.folder / layout.EXAMPLES)
                images = open_dataset("folder", split="all", data_dir=folder, image_size=size, channels=channels)
            else:
                images = base.open_dataset(self.config, "test", self._data_dir)
            return [images[i]["image"] for i in range(min(EXAMPLES, len(images)))]
        except UserError:
            return []

    # What is done

    def reconstruct(self, image: np.ndarray, steps: Steps) -> Answer:
        """What decoding starts from, and the image that comes back."""
        began, encoded = time.perf_counter(), self._of(image, steps)
        xT = next(iter(starts(self.model, encoded).values()))
        pictures = {"x_T": to_uint8(np.clip(xT[0], -1, 1)), "back from the code": self._decode(encoded, steps)[0]}
        return Answer(pictures, self._line(began, steps), encoded.z[0])

    def interpolate(self, first: np.ndarray, second: np.ndarray, points: int, steps: Steps) -> Answer:
        """`points` frames, both ends included."""
        began = time.perf_counter()
        way = edit.interpolate(self._of(first, steps), self._of(second, steps), points)
        frames = self._decode(way, steps)
        names = [f"{share:.0%}" for share in np.linspace(0, 1, points)]
        return Answer(dict(zip(names, frames, strict=True)), self._line(began, steps, points))

    def manipulate(self, image: np.ndarray, scales: Mapping[str, float], steps: Steps) -> Answer:
        """The image with its attributes moved, all at once, each by its scale, as the config's `tasks.manipulate` says.

        Raises UserError where the way goes across the boundary of a measure, which has none.
        """
        began, encoded = time.perf_counter(), self._of(image, steps)
        moved = self._moved(encoded, {name: scale for name, scale in scales.items() if scale})
        xT = self.model.endpoint(moved.z if self._manipulate.endpoint == "moved" else encoded.z)
        return Answer({"changed": self._decode(moved, steps, xT)[0]}, self._line(began, steps), moved.z[0])

    def _moved(self, encoded: Encoded, scales: Mapping[str, float]) -> Encoded:
        task = self._manipulate
        normalised = task.normalises(self.model.auto_encoder)
        if task.move == "across" and scales:
            if measured := [name for name in scales if self.heads[name].kind != "bce"]:
                raise UserError(
                    f"config.tasks.manipulate.move=across goes by boundaries, and '{measured[0]}' is measured, it has "
                    "none: leave its slider at 0, or set move=along in the run's config.json."
                )
            head = signed({name: self.heads[name] for name in scales}, dict.fromkeys(scales, 1))
            largest = max(scales.values(), key=abs)
            shares = np.array([scale / largest for scale in scales.values()], np.float32)
            return edit.step(encoded, head.to_boundary(encoded.z, normalised, shares), largest)
        for name, scale in scales.items():
            encoded = edit.move(encoded, self.heads[name].direction(normalised), scale)
        return encoded

    def read(self, z: np.ndarray) -> dict[str, float]:
        """What each head says of a code [d]: of what an image has or lacks a probability, of measures the value."""
        said = {name: float(head.logits(z[None])[0, 0]) for name, head in self.heads.items()}
        return {name: _sigmoid(x) if self.heads[name].kind == "bce" else x for name, x in said.items()}

    def exchange(self, first: np.ndarray, second: np.ndarray, chosen: Sequence[str], steps: Steps) -> Answer:
        """Either image with the chosen blocks of the other's code."""
        began = time.perf_counter()
        one, other = self._of(first, steps), self._of(second, steps)
        ends = np.array(self._block_ends())
        swapped = [one.z.copy(), other.z.copy()]
        for name in chosen:
            dimensions = edit.block_dimensions(ends, self.blocks.index(name), 1)
            swapped[0][:, dimensions], swapped[1][:, dimensions] = other.z[:, dimensions], one.z[:, dimensions]
        images = [self._decode(side.with_z(z), steps)[0] for side, z in zip((one, other), swapped, strict=True)]
        names = ("first, with blocks of the second", "second, with blocks of the first")
        return Answer(dict(zip(names, images, strict=True)), self._line(began, steps, 2))

    def sample(self, count: int, first: int, steps: Steps) -> Answer:
        """New images, the numbers `first` ...; each depends on its number alone. UserError without a prior."""
        began, how = time.perf_counter(), self._how(steps)
        images = to_uint8(self.model.generate(count, how, self.prior, numbers=first))
        names = [f"number {first + i}" for i in range(count)]
        return Answer(dict(zip(names, images, strict=True)), self._line(began, Steps(steps.decode, 0), count))

    # How

    def _single_heads(self) -> dict[str, Head]:
        """Each head alone, by its name; with the data set where two have the same."""
        single: dict[str, Head] = {}
        for (dataset, _), several in heads.stored(self.folder, self.model).items():
            for name in several.names:
                single[f"{name} ({dataset})" if name in single else name] = several.only(name)
        return single

    def _block_ends(self) -> list[int]:
        own = self.model.auto_encoder.block_ends
        if len(own) > 1 or self.model.latent_dim % EQUAL_BLOCKS:
            return own.tolist()
        return edit.block_ends(own, EQUAL_BLOCKS, "blocks").tolist()

    def _of(self, image: np.ndarray, steps: Steps) -> Encoded:
        reversible = self.model.sampling.returning().stepper().reversible
        if not (steps.invert and reversible):  # else the way down is no matter of the way up
            steps = Steps(self.model.sampling.steps, steps.invert)
        return self.encode(image.tobytes(), image.shape, steps)

    def _encode(self, pixels: bytes, shape: tuple[int, ...], steps: Steps) -> Encoded:
        image = np.frombuffer(pixels, np.uint8).reshape(1, *shape)
        return self.model.encoded(image, steps.invert, self._how(steps))

    def _how(self, steps: Steps) -> Sampling:
        return dataclasses.replace(self.model.sampling, steps=steps.decode)

    def _decode(self, encoded: Encoded, steps: Steps, xT: np.ndarray | None = None) -> np.ndarray:
        how = self._how(steps)
        return to_uint8(self.model.decode(encoded, xT, how, numbers=np.zeros(len(encoded), np.int32)))

    def _line(self, began: float, steps: Steps, images: int = 1) -> str:
        """Sampler, evaluations of the network for each image, time."""
        how = self._how(steps)
        described = base.describe(how, self.model.method, steps.invert)
        up = base.inverting(how, self.model.method, steps.invert)["invert_evaluations"]
        both = f"{described['evaluations']} evaluations" + (f" + {up} upward" if up else "")
        many = f" each, {images} images" if images > 1 else ""
        return f"{how.sampler}, {both}{many}, {time.perf_counter() - began:.1f} s"


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -50, 50))))
