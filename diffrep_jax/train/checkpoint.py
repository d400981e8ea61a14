"""Checkpoints of a run: Orbax, asynchronous and atomic, one item for each part of the state.

The parts are saved apart, so that a task reads the averaged weights and nothing else. What a run that was killed in
mid-save leaves behind is ignored and removed by the next one.
"""

import contextlib
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from diffrep_jax.errors import UserError
from diffrep_jax.train.frozen import averaged, overlay
from diffrep_jax.train.state import TrainState, abstract_variables
from diffrep_jax.types import PyTree

FOLDER = "checkpoints"


class Checkpoints:
    """The checkpoints in `<workdir>/checkpoints`: the last `keep_last`, and every one at a multiple of `keep_every`.

    keep_every = 0 keeps no others.
    """

    def __init__(self, workdir: pathlib.Path, keep_last: int = 1, keep_every: int = 0):
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep_last)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._folder = pathlib.Path(workdir).absolute() / FOLDER
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=policies.AnyPreservationPolicy(kept),
            save_decision_policy=ocp.training.save_decision_policies.ContinuousCheckpointingPolicy(),
            cleanup_tmp_directories=True,
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def save(self, step: int, state: TrainState) -> None:
        """Start writing; returns as soon as the state has been copied. A step that exists is left as it is."""
        if step != self.latest_step():
            self._checkpointer.save_checkpointables_async(step, _not_empty(_parts(state)), force=True)

    def check(self, template: TrainState) -> int:
        """The newest checkpoint's step, 0 where there is none; raises UserError where it does not fit `template`."""
        step = self.latest_step()
        if step is None:
            return 0
        self._compare(step, self._saved_parts(step, template))
        return step

    def fitting(self, template: TrainState, other: TrainState) -> TrainState:
        """`other` where the newest checkpoint has the layout of its optimizer's state, else `template`."""
        step = self.latest_step()
        saved = None if step is None else self._saved(step).get("opt_state")
        return other if saved is not None and _shapes(saved) == _shapes(other.opt_state) else template

    def restore(self, template: TrainState) -> TrainState:
        """The newest state, laid out as `template` (arrays or ShapeDtypeStructs with shardings) says.

        Its opt_state is None where the checkpoint has none: that of an imported run.
        """
        step = self._existing_step()
        return TrainState(**{"opt_state": None} | self._load(step, self._saved_parts(step, template)))

    def restore_parts(self, **templates: PyTree) -> dict[str, PyTree]:
        """Only the named parts of the newest state, e.g. `restore_parts(ema=...)`."""
        return self._load(self._existing_step(), templates)

    def _existing_step(self) -> int:
        step = self.latest_step()
        if step is None:
            raise UserError(f"No checkpoint in {self._folder}; train first (--task=train).")
        return step

    def _saved(self, step: int) -> dict[str, PyTree]:
        return self._checkpointer.checkpointables_metadata(step).metadata

    def _saved_parts(self, step: int, template: TrainState) -> dict[str, PyTree]:
        """The parts of a state that a checkpoint has to have: all, but the optimizer's only if it is there."""
        parts = _parts(template)
        if "opt_state" not in self._saved(step):
            del parts["opt_state"]
        return parts

    def _load(self, step: int, templates: dict[str, PyTree]) -> dict[str, PyTree]:
        self._compare(step, templates)
        return templates | self._checkpointer.load_checkpointables(step, _not_empty(templates))

    def _compare(self, step: int, templates: dict[str, PyTree]) -> None:
        saved = self._saved(step)
        for name, template in _not_empty(templates).items():
            _compare(name, saved.get(name), template, f"{self._folder}/{step}")

    def close(self) -> None:
        """Wait until everything is written."""
        self._checkpointer.close()


@contextlib.contextmanager
def opened(workdir: pathlib.Path, keep_last: int = 1, keep_every: int = 0) -> Any:
    """`Checkpoints` that are closed at the end, whatever happens."""
    checkpoints = Checkpoints(workdir, keep_last, keep_every)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def load_variables(workdir: pathlib.Path, method: Any, mesh: Mesh, params: str = "ema") -> PyTree:
    """{"params", "batch_stats"} of a run's newest checkpoint, averaged ("ema") or "live"; no optimizer is read."""
    if not (pathlib.Path(workdir) / FOLDER).is_dir():
        raise UserError(f"No {FOLDER} folder in {workdir}; train first (--task=train).")
    variables = abstract_variables(method, mesh)
    with opened(workdir) as checkpoints:
        if params == "ema":
            ema = variables | {"params": averaged(method, variables["params"])}
            if jax.tree.structure(ema) == jax.tree.structure(variables):
                return checkpoints.restore_parts(ema=ema)["ema"]
            parts = checkpoints.restore_parts(ema=ema, params=variables["params"])  # not all have an average
            return parts["ema"] | {"params": overlay(parts["params"], parts["ema"]["params"])}
        return checkpoints.restore_parts(**variables)


def _parts(state: TrainState) -> dict[str, PyTree]:
    return {name: getattr(state, name) for name in state.__dataclass_fields__}


def _not_empty(parts: dict[str, PyTree]) -> dict[str, PyTree]:
    """Without the parts that hold no array (a method without batch statistics): Orbax refuses them."""
    return {name: part for name, part in parts.items() if jax.tree.leaves(part)}


def _compare(part: str, saved: PyTree, wanted: PyTree, place: str) -> None:
    """Raise UserError that names the first leaf whose presence or shape differs."""
    ours, theirs = _shapes(wanted), _shapes(saved)
    for path in sorted(ours.keys() | theirs.keys()):
        if ours.get(path) != theirs.get(path):
            raise UserError(
                f"Checkpoint {place} does not fit this model: {part}{path} is {theirs.get(path, 'absent')} in the "
                f"file and {ours.get(path, 'absent')} here; use the run's own config.json."
            )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    plain = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {"".join(f".{_name(key)}" for key in path): tuple(leaf.shape) for path, leaf in plain}


def _name(key: Any) -> str:
    """A path entry's plain name: Orbax gives back dicts and lists where we have dataclasses and tuples."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
