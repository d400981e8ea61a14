"""Tasks as training hooks: the same code that `--task=` runs, on the averaged weights, every n steps."""

import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np
from PIL import Image

from diffrep_jax.tasks import base
from diffrep_jax.train.runtime import is_first
from diffrep_jax.train.state import TrainState
from diffrep_jax.train.writer import Writer


@dataclasses.dataclass(frozen=True)
class TaskHook:
    """Runs a task into `<workdir>/previews/step_<n>/`; its numbers and pictures go to the writer."""

    name: str
    task: Any
    method: Any
    config: Any
    workdir: pathlib.Path

    def due(self, step: int) -> bool:
        return step % self.task.every_steps == 0

    def __call__(self, step: int, state: TrainState, writer: Writer) -> None:
        if not (self.task.needs_run or is_first()):
            return  # nothing to compute together, and nothing to read here
        # All processes compute, the first one writes where it counts.
        root = self.workdir if is_first() else pathlib.Path(tempfile.gettempdir())
        folder = root / "previews" / f"step_{step:08d}"
        numbers = self.task.run(self.method, state.averaged, self.config, folder)
        writer.scalars(step, {f"{self.name}/{key}": value for key, value in numbers.items()})
        for picture in sorted((folder / self.name).glob("*.png")):
            writer.image(step, f"{self.name}/{picture.stem}", np.asarray(Image.open(picture)))


def task_hooks(method: Any, config: Any, workdir: pathlib.Path, data_dir: pathlib.Path | None) -> list[TaskHook]:
    """A hook for every section of `config.tasks` whose `every_steps` is above 0."""
    due = {name: settings for name, settings in config.tasks.items() if "every_steps" in settings}
    tasks = {name: base.build(name, settings, {"data_dir": data_dir}) for name, settings in due.items()}
    hooks = [TaskHook(name, task, method, config, workdir) for name, task in tasks.items() if task.every_steps > 0]
    return sorted(hooks, key=lambda hook: not hook.task.needs_run)  # the report is of what the others have written
