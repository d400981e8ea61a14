"""The Task protocol, tasks by file name, and what tasks share: data, progress, how codes become images."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from diffrep_jax import data, discovery
from diffrep_jax.data import framing
from diffrep_jax.data.transforms import load_image
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import check_count, check_numbers, construct, defaults, refuse_unknown
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import Method
from diffrep_jax.runs.layout import Run, as_path
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.types import Config

T = TypeVar("T")

PACKAGE = "diffrep_jax.tasks"
SHARED = ("encode",)  # what several processes do together; all else the first one does alone
PATHS = ("data_dir", "checkpoint", "images", "weights_dir")  # fields that the command line fills, no config


class Task(Protocol):
    """A frozen dataclass whose fields, with their defaults, are the config's `tasks.<name>` section, and those of PATHS
    that it wants.

    A task with a field `every_steps` also runs inside training, every so many steps (0: never), and has `check`.
    """

    needs_run: ClassVar[bool]  # False: it starts without a trained model, `model` is None

    def check(self, model: Any, run: Run) -> None:
        """Open all that `run` will need besides the weights, before training begins; UserError for what does not fit.

        `model` has no weights yet. Nothing is computed or written.
        """
        ...

    def run(self, model: Any, run: Run) -> dict[str, float]:
        """Write pictures and arrays into the task's folder of the run; return the numbers, also in its metrics.json."""
        ...


def names() -> tuple[str, ...]:
    """The tasks that there are besides "train": the files of this folder that end in `Task = ...`."""
    return discovery.names(PACKAGE, "Task")


def task_class(name: str) -> Any:
    """`tasks/<name>.py`'s `Task`."""
    if name not in names():
        raise unknown("task", name, [*names(), "train"])
    return discovery.load(PACKAGE, name, "Task")


def sections() -> dict[str, dict[str, Any]]:
    """{task: its section of the config, as its defaults have it}."""
    return {name: defaults(task_class(name), without=PATHS) for name in names()}


def takers(path: str) -> list[str]:
    """The tasks that have one of PATHS."""
    return [name for name in names() if path in (f.name for f in dataclasses.fields(task_class(name)))]


def build(name: str, settings: Mapping[str, Any], paths: Mapping[str, pathlib.Path | None]) -> Any:
    """The task of the config's `tasks.<name>` section; `paths`: {field of PATHS: value}, None where not given.

    Raises UserError where a field is unknown or wrong, or a path was given that the task has no use for.
    """
    cls, place = task_class(name), f"config.tasks.{name}"
    fields = {f.name for f in dataclasses.fields(cls)}
    refuse_unknown(dict(settings), fields - set(PATHS), place)
    for path, value in paths.items():
        if value is not None and path not in fields and path != "data_dir":  # DIFFREP_DATA may be set for all
            raise UserError(f"--{path} {value} is of no use to --task={name}; leave it out.")
    wanted = {path: paths[path] for path in PATHS if path in fields and path in paths}
    return construct(cls, dict(settings) | wanted, place)


def open_dataset(config: Config, split: str, data_dir: pathlib.Path | None, name: str = "") -> data.ImageDataset:
    """The dataset `name`, or the run's own for "", in the shape that its model takes."""
    section = config.data
    shape = {"image_size": section.image_size, "channels": section.channels}
    return data.open_dataset(name or section.name, split=split, data_dir=data_dir, **shape)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """A progress bar on a terminal, nothing elsewhere."""
    return iter(tqdm(items, total=total, desc=what, disable=None, leave=False))


def describe(how: Sampling, method: Method, invert_steps: int = 0) -> dict[str, Any]:
    """How pictures were made, for metrics.json; `invert_steps`: of their stochastic codes, 0 for none."""
    coded = invert_steps > 0
    used = how.returning() if coded else how
    return dataclasses.asdict(used) | {"evaluations": used.nfe(method.process, coded=coded)}


@dataclasses.dataclass(frozen=True)
class DecodingTask:
    """The fields of every task that decodes; how it does is the config's section `sampling`.

    every_steps: of training, 0 for never; batch_size: images at a time.
    """

    needs_run: ClassVar[bool] = True

    every_steps: int = 0
    batch_size: int = 32
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        check_numbers(self, _place(self), {"every_steps": 0, "batch_size": 1})

    def check(self, model: Model, run: Run) -> None:
        """As `Task.check`: here the recipe."""
        describe(model.sampling, model.method)


@dataclasses.dataclass(frozen=True)
class ImageTask(DecodingTask):
    """The fields of tasks that decode what they have encoded.

    Attributes:
      split: of the data set that images are taken from.
      invert_steps: of the ODE upward to the stochastic code, which is all of an image that z leaves open; 0: do
        without, decoding starts from the endpoint of z alone.
    """

    split: str = "test"
    invert_steps: int = 0

    def __post_init__(self):
        super().__post_init__()
        check_numbers(self, _place(self), {"invert_steps": 0})

    def check(self, model: Model, run: Run) -> None:
        """As `Task.check`: the recipe both ways, and the split."""
        model.check_encoded(self.invert_steps)
        self.description(model)
        self.open_images(run.config)

    def open_images(self, config: Config) -> data.ImageDataset:
        """The images; UserError where there are none."""
        return open_dataset(config, self.split, self.data_dir)

    def encode(self, model: Model, images: np.ndarray, first: int = 0) -> Encoded:
        """Images -> their codes; `first` is the number of the first image."""
        return model.encoded(images, self.invert_steps, numbers=first)

    def decode_points(self, model: Model, points: Encoded, what: str) -> np.ndarray:
        """Codes on a way -> images in [-1, 1]; they vary with their codes alone, all noise being that of image 0."""
        starts = range(0, len(points), self.batch_size)
        rows = [points[first : first + self.batch_size] for first in starts]
        images = [model.decode(part, numbers=np.zeros(len(part), np.int32)) for part in progress(rows, len(rows), what)]
        return np.concatenate(images)

    def description(self, model: Model) -> dict[str, Any]:
        """`describe` of the model's recipe and of the way up."""
        how, method, steps = model.sampling, model.method, self.invert_steps
        return describe(how, method, steps) | inverting(how, method, steps)


@dataclasses.dataclass(frozen=True)
class PhotoTask(ImageTask):
    """Tasks that take images of the user's, too: `--images`, a file, folder or archive, in place of `split`."""

    images: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def open_images(self, config: Config) -> data.ImageDataset:
        return (
            super().open_images(config) if self.images is None else open_dataset(config, "all", self.images, "folder")
        )

    def warn_of_framing(self, config: Config, files: Iterable[str] = ()) -> None:
        """Log what is odd in the framing of `--images`, and of single files."""
        if self.images is not None:
            framing.warn(framing.named(self.open_images(config).source), config.data.name)
        if single := [(name, pathlib.Path(as_path(name)).read_bytes()) for name in files if not name.isdecimal()]:
            framing.warn(single, config.data.name)

    def image(self, field: str, model: Model, config: Config) -> np.ndarray:
        """The uint8 image [h, w, c] that the task's field names, by a path or by its number among the images."""
        name, place = getattr(self, field), f"{_place(self)}.{field}"
        if not name:
            raise UserError(f"{place}: '' names no image; give a file, or a number from 0 on.")
        dataset = self.open_images(config) if name.isdecimal() else None
        try:
            if dataset is None:
                return load_image(pathlib.Path(as_path(name)), model.image_size, model.channels)
            if int(name) >= len(dataset):
                where = f"split '{self.split}'" if self.images is None else f"'{self.images}'"
                raise UserError(f"There is no image {name}: {where} has {len(dataset)}, from 0 on.")
            return dataset[int(name)]["image"]
        except UserError as error:
            raise UserError(f"{place}={name}: {error}") from None


def _place(task: DecodingTask) -> str:
    """The section of the config, for messages: a task's class is named like its file."""
    return f"tasks.{type(task).__name__.lower()}"


def inverting(how: Sampling, method: Method, steps: int) -> dict[str, Any]:
    """How stochastic codes were made, for metrics.json."""
    return {"invert_steps": steps, "invert_evaluations": how.inverted(steps).nfe(method.process, True) if steps else 0}


def check_encoding(task: str, dataset: str, num_images: int, batch_size: int) -> None:
    """Raise UserError for settings of a task that no data set can be encoded with."""
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"The batch size {batch_size!r} of tasks.{task} must be at least 1.")
    check_count(num_images, f"tasks.{task}.num_images")
    check_dataset(task, dataset)


def check_dataset(task: str, dataset: str) -> None:
    """Raise UserError for a data set that there is not; "" is the run's own."""
    if dataset and dataset not in data.dataset_names():
        raise unknown("data set", dataset, data.dataset_names(), f"tasks.{task}.dataset")
