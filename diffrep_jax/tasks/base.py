"""The Task protocol, tasks by file name, and what every task does: open a run's data, decode, write its numbers."""

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
from tqdm import tqdm

from diffrep_jax import data, samplers
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.types import PyTree

T = TypeVar("T")


class Task(Protocol):
    """A frozen dataclass whose fields are the config's `tasks.<name>` section, and `data_dir`."""

    every_steps: int  # how often training runs it as a hook; 0: never
    data_dir: pathlib.Path | None

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        """Write pictures and arrays to `<workdir>/<task>/`; return the numbers, also written to metrics.json."""
        ...


def names() -> list[str]:
    """The tasks that run on a trained model, by file."""
    folder = pathlib.Path(__file__).parent
    return sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "base"))


def build(name: str, settings: Any, data_dir: pathlib.Path | None) -> Any:
    """`tasks/<name>.py`'s `Task` from the config's `tasks.<name>` section."""
    if name not in names():
        raise unknown("task", name, [*names(), "train"])
    cls = importlib.import_module(f"diffrep_jax.tasks.{name}").Task
    known = {f.name for f in dataclasses.fields(cls)} - {"data_dir"}
    for field in settings:
        if field not in known:
            raise unknown("field", field, known, f"config.tasks.{name}")
    if missing := sorted(known - set(settings)):
        raise UserError(f"config.tasks.{name} lacks {', '.join(missing)}; add it to the config.")
    return cls(**settings, data_dir=data_dir)


def open_dataset(config: Any, split: str, data_dir: pathlib.Path | None) -> Any:
    """The run's dataset, in the shape that its model takes."""
    section = config.data
    return data.open_dataset(
        section.name, split=split, image_size=section.image_size, channels=section.channels, data_dir=data_dir
    )


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """A progress bar on a terminal, nothing elsewhere."""
    return iter(tqdm(items, total=total, desc=what, disable=None, leave=False))


def output_folder(workdir: pathlib.Path, task: str) -> pathlib.Path:
    folder = pathlib.Path(workdir) / task
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_metrics(folder: pathlib.Path, metrics: dict[str, Any]) -> None:
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class DecodingTask:
    """The fields of every task that decodes: how, from which seed, how many at a time.

    Attributes:
      sampler, grid, steps, churn_step_ratio: see `samplers/`; the number of evaluations is in metrics.json.
      seed: of the noise of stochastic samplers and endpoints, by image number.
      batch_size: images at a time.
    """

    every_steps: int
    sampler: str
    grid: str
    steps: int
    churn_step_ratio: float
    seed: int
    batch_size: int
    data_dir: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        samplers.build(self.sampler, self.churn_step_ratio)
        for field in ("steps", "batch_size"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} {getattr(self, field)} of a task must be at least 1.")

    def decode(self, model: Inference, z: np.ndarray, xT: np.ndarray, first: int = 0) -> np.ndarray:
        """(z, x_T) -> images in [-1, 1]; `first` is the number of the first image."""
        return model.decode(
            *(z, xT),
            sampler=self.sampler,
            grid=self.grid,
            steps=self.steps,
            churn_step_ratio=self.churn_step_ratio,
            seed=self.seed,
            first=first,
        )

    def description(self) -> dict[str, Any]:
        """Which sampler made the pictures, for metrics.json."""
        evaluations = samplers.build(self.sampler, self.churn_step_ratio).evaluations(self.steps)
        return {
            "sampler": self.sampler,
            "grid": self.grid,
            "steps": self.steps,
            "churn_step_ratio": self.churn_step_ratio,
            "evaluations": evaluations,
            "seed": self.seed,
        }
