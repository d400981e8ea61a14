"""Tasks as training hooks: the same code that `--task=` runs, on the averaged weights, every n steps."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np
from PIL import Image

from diffrep_jax.errors import NotFinite, UserError
from diffrep_jax.hosts import is_first
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import recipe
from diffrep_jax.methods.base import Method
from diffrep_jax.runs.layout import NUMBERS, Run
from diffrep_jax.sharding import make_mesh, mesh_of
from diffrep_jax.tasks import base
from diffrep_jax.train.state import TrainState
from diffrep_jax.train.writer import Writer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TaskHook:
    """Runs a task into `<workdir>/previews/step_<n>/`; its numbers and pictures go to the writer."""

    name: str
    task: Any
    method: Method
    run: Run

    def due(self, step: int) -> bool:
        return step % self.task.every_steps == 0

    def check(self) -> None:
        """UserError, with the way to do without it, where the task will not find what it needs."""
        model = Model(self.method, {}, make_mesh(**self.run.config.mesh), recipe(self.run.config))
        try:
            self.task.check(model, self.run.preview(0))
        except UserError as error:
            raise UserError(
                f"{error} That is for the preview config.tasks.{self.name}: change this section, or turn the preview "
                "off."
            ) from None

    def missed(self, step: int) -> bool:
        return jax.process_count() == 1 and not (self.run.preview(step).folder / self.name / NUMBERS).is_file()

    def __call__(self, step: int, state: TrainState, writer: Writer) -> None:
        if not (self.task.needs_run or is_first()):
            return  # nothing to compute together, and nothing to read here
        # All processes compute, the first one writes where it counts.
        with contextlib.nullcontext() if is_first() else tempfile.TemporaryDirectory() as elsewhere:
            self._into(self.run.preview(step, elsewhere), step, state, writer)

    def _into(self, preview: Run, step: int, state: TrainState, writer: Writer) -> None:
        model = None
        if self.task.needs_run:
            variables = state.averaged
            model = Model(self.method, variables, mesh_of(variables), recipe(self.run.config))
        try:
            numbers = self.task.run(model, preview)
        except NotFinite as error:  # early weights may be far off: training goes on
            log.warning("No preview of %s at step %d: %s", self.name, step, error)
            return
        writer.scalars(step, {f"{self.name}/{key}": value for key, value in numbers.items() if math.isfinite(value)})
        for picture in sorted(preview.task_folder(self.name).glob("*.png")):
            with picture.open("rb") as file:
                writer.image(step, f"{self.name}/{picture.stem}", np.asarray(Image.open(file, formats=("PNG",))))


def task_hooks(method: Method, run: Run, data_dir: pathlib.Path | None) -> list[TaskHook]:
    """A hook for every section of `config.tasks` whose `every_steps` is above 0 and not beyond the training."""
    due = {name: settings for name, settings in run.config.tasks.items() if "every_steps" in settings}
    tasks = {name: base.build(name, settings, {"data_dir": data_dir}) for name, settings in due.items()}
    most = run.config.train.total_steps
    hooks = [TaskHook(name, task, method, run) for name, task in tasks.items() if 0 < task.every_steps <= most]
    return sorted(hooks, key=lambda hook: not hook.task.needs_run)  # the report is of what the others have written
