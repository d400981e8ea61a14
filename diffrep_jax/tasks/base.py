"""The Task protocol, tasks by file name, and what every task does: open a run's data, decode, write its numbers."""

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from diffrep_jax import data, samplers
from diffrep_jax.data.transforms import load_image, to_uint8
from diffrep_jax.encoded import Encoded
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.types import PyTree

T = TypeVar("T")

INVERTING = "exponential"  # the sampler that also runs upward

PATHS = ("data_dir", "checkpoint", "images", "weights_dir")  # fields that the command line fills, no config


class Task(Protocol):
    """A frozen dataclass whose fields are the config's `tasks.<name>` section, and those of PATHS that it wants.

    A task with a field `every_steps` also runs inside training, every so many steps (0: never).
    """

    needs_run: ClassVar[bool]  # False: it starts without a trained model, `variables` is None

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        """Write pictures and arrays to `<workdir>/<task>/`; return the numbers, also written to metrics.json."""
        ...


def names() -> list[str]:
    """The tasks that there are beside "train": one for each file whose name has no leading underscore, but base."""
    folder = pathlib.Path(__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if p.stem != "base" and not p.stem.startswith("_"))


def task_class(name: str) -> Any:
    """`tasks/<name>.py`'s `Task`."""
    if name not in names():
        raise unknown("task", name, [*names(), "train"])
    return importlib.import_module(f"diffrep_jax.tasks.{name}").Task


def build(name: str, settings: Any, paths: Mapping[str, pathlib.Path | None]) -> Any:
    """The task of the config's `tasks.<name>` section; `paths`: {field of PATHS: value}, None where not given.

    Raises UserError where a field is unknown or missing, or a path was given that the task has no use for.
    """
    cls = task_class(name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    known = fields.keys() - set(PATHS)
    for field in settings:
        if field not in known:
            raise unknown("field", field, known, f"config.tasks.{name}")
    if missing := sorted(known - set(settings)):
        raise UserError(
            f"config.tasks.{name} lacks {', '.join(missing)}; add it to the config, or for a run of an earlier version "
            "--config=FILE, the config file that it began with."
        )
    for path, value in paths.items():
        if value is not None and path not in fields and path != "data_dir":  # DIFFREP_DATA may be set for all
            raise UserError(f"--{path} {value} is of no use to --task={name}; leave it out.")
    wanted = {path: paths[path] for path in PATHS if path in fields and path in paths}
    return cls(**settings, **wanted)


def open_dataset(config: Any, split: str, data_dir: pathlib.Path | None, name: str = "") -> Any:
    """The dataset `name`, or the run's own for "", in the shape that its model takes."""
    section = config.data
    shape = {"image_size": section.image_size, "channels": section.channels}
    return data.open_dataset(name or section.name, split=split, data_dir=data_dir, **shape)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """A progress bar on a terminal, nothing elsewhere."""
    return iter(tqdm(items, total=total, desc=what, disable=None, leave=False))


def output_folder(workdir: pathlib.Path, task: str) -> pathlib.Path:
    folder = pathlib.Path(workdir) / task
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_metrics(folder: pathlib.Path, metrics: dict[str, Any], name: str = "metrics.json") -> None:
    (folder / name).write_text(json.dumps(metrics, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class DecodingTask:
    """The fields of every task that decodes: how, from which seed, how many at a time.

    Attributes:
      sampler, grid, steps, churn_step_ratio, eta: see `samplers/`; the number of evaluations is in metrics.json.
      seed: of the noise of stochastic samplers and endpoints, by image number.
      batch_size: images at a time.
    """

    needs_run = True

    every_steps: int
    sampler: str
    grid: str
    steps: int
    churn_step_ratio: float
    eta: float
    seed: int
    batch_size: int
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        samplers.build(self.sampler, self.churn_step_ratio, self.eta)
        for field in ("steps", "batch_size"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} {getattr(self, field)} of a task must be at least 1.")

    @property
    def _sampling(self) -> dict[str, Any]:
        names = ("sampler", "grid", "steps", "churn_step_ratio", "eta", "seed")
        return {name: getattr(self, name) for name in names}

    def decode(
        self,
        model: Inference,
        z: np.ndarray,
        xT: np.ndarray,
        first: int = 0,
        stochastic_code: np.ndarray | None = None,
        sampled: bool = False,
    ) -> np.ndarray:
        """(z, x_T) -> images in [-1, 1]; `first` is the number of the first image; `sampled`: a prior made z."""
        return model.decode(
            *(z, xT),
            **self._sampling,
            first=first,
            stochastic_code=stochastic_code,
            sampled=sampled,
        )

    def generate(self, model: Inference, count: int, first: int = 0) -> np.ndarray:
        """`count` samples of a method without a code; `first` is the number of the first one."""
        return model.generate(count, **self._sampling, first=first)

    def description(self, method: Any) -> dict[str, Any]:
        """Which sampler made the pictures, for metrics.json."""
        intervals = len(samplers.grid(self.grid, method.process, self.steps)) - 1
        evaluations = samplers.build(self.sampler, self.churn_step_ratio, self.eta).evaluations(intervals)
        return {
            "sampler": self.sampler,
            "grid": self.grid,
            "steps": self.steps,
            "churn_step_ratio": self.churn_step_ratio,
            "eta": self.eta,
            "evaluations": evaluations,
            "seed": self.seed,
        }


@dataclasses.dataclass(frozen=True)
class ImageTask(DecodingTask):
    """The fields of tasks that decode what they have encoded.

    Attributes:
      split: of the data set that images are taken from.
      invert_steps: of the ODE upward that finds the stochastic code, which is all of an image that z leaves open; 0:
        do without, decoding starts from the endpoint of z alone.
    """

    split: str
    invert_steps: int

    def __post_init__(self):
        super().__post_init__()
        if self.invert_steps < 0:
            raise UserError(f"invert_steps {self.invert_steps} of a task is below 0; 0 looks for no stochastic code.")

    def encode(self, model: Inference, x0: np.ndarray, first: int = 0) -> Encoded:
        """Images in [-1, 1] -> their codes; `first` is the number of the first image."""
        z = model.encode(x0)
        if self.invert_steps == 0:
            return Encoded(z, None)
        xT = model.endpoint(z, self.seed, first)
        return Encoded(z, model.invert(x0, z, xT, sampler=INVERTING, grid=self.grid, steps=self.invert_steps))

    def decode_encoded(self, model: Inference, encoded: Encoded, first: int = 0) -> np.ndarray:
        """Codes -> images in [-1, 1], x_T being the endpoint of z; `first` is the number of the first image."""
        xT = model.endpoint(encoded.z, self.seed, first)
        return self.decode(model, encoded.z, xT, first, encoded.stochastic_code)

    def decode_points(self, model: Inference, points: Sequence[Encoded], what: str) -> np.ndarray:
        """Single images [1, ...] on a way -> uint8 [n, h, w, c]; they vary with their codes alone.

        All noise is that of image 0.
        """
        images = [self.decode_encoded(model, point) for point in progress(points, len(points), what)]
        return to_uint8(np.concatenate(images))

    def description(self, method: Any) -> dict[str, Any]:
        evaluations = 0
        if self.invert_steps:
            intervals = len(samplers.grid(self.grid, method.process, self.invert_steps, encoding=True)) - 1
            evaluations = samplers.build(INVERTING).evaluations(intervals)
        inverting = {"invert_steps": self.invert_steps, "invert_evaluations": evaluations}
        return super().description(method) | inverting

    def image(self, name: str, method: Any, config: Any) -> np.ndarray:
        """A uint8 image [h, w, c], named by a path or by its number in the split."""
        if not name.isdigit():
            return load_image(pathlib.Path(name), method.image_size, method.channels)
        dataset = open_dataset(config, self.split, self.data_dir)
        if int(name) >= len(dataset):
            raise UserError(f"There is no image {name}: split '{self.split}' has {len(dataset)}, from 0 on.")
        return dataset[int(name)]["image"]
