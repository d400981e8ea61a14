"""Checkpoints of a run: Orbax, asynchronous and atomic, one item for each part of the state.

The parts are saved apart, so that a task reads the averaged weights and nothing else. What a run that was killed in
mid-save leaves behind is ignored and removed by the next one that writes.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout
from diffrep_jax.types import PyTree

Parts = Mapping[str, PyTree]  # {name: tree of arrays, or of ShapeDtypeStructs with shardings}


class Checkpoints:
    """The checkpoints in `<folder>/checkpoints`: the last `keep_last`, and every one at a multiple of `keep_every`.

    keep_every = 0 keeps no others. Open to read (`writer` False) it deletes nothing.
    """

    def __init__(
        self, folder: str | os.PathLike[str], keep_last: int = 1, keep_every: int = 0, writer: bool = False
    ):
        policies: Any = ocp.training.preservation_policies
        decisions: Any = ocp.training.save_decision_policies
        kept = [policies.LatestN(keep_last)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        path = layout.as_path(folder) / layout.CHECKPOINTS
        self._folder = path if "://" in os.fspath(path) else path.resolve()
        self._checkpointer = ocp.training.Checkpointer(
            self._folder,
            preservation_policy=policies.AnyPreservationPolicy(kept),
            save_decision_policy=decisions.ContinuousCheckpointingPolicy(),
            cleanup_tmp_directories=writer,
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step."""
        latest = self._checkpointer.latest
        return None if latest is None else latest.step

    def existing_step(self) -> int:
        """The same; UserError where there is none."""
        step = self.latest_step()
        if step is None:
            raise UserError(f"No checkpoint in {self._folder}; train first (--task=train).")
        return step

    def saved_parts(self) -> Collection[str]:
        """The names of the parts that the newest checkpoint has."""
        return self._saved(self.existing_step()).keys()

    def leaves(self, part: str) -> Collection[str]:
        """The paths of the newest checkpoint's leaves in one part, such as ".kernel"."""
        return _shapes(self._saved(self.existing_step())[part]).keys()

    def save(self, step: int, parts: Parts) -> None:
        """Start writing; returns as soon as the arrays have been copied. A step that exists is left as it is."""
        if step != self.latest_step():
            self._checkpointer.save_checkpointables_async(step, _not_empty(parts), force=True)

    def check(self, templates: Parts) -> None:
        """Raise UserError where the newest checkpoint does not fit the templates."""
        self._compare(self.existing_step(), templates)

    def restore(self, templates: Parts) -> dict[str, PyTree]:
        """Parts of the newest checkpoint, laid out as the templates say."""
        step = self.existing_step()
        self._compare(step, templates)
        return {**templates, **self._checkpointer.load_checkpointables(step, _not_empty(templates))}

    def _saved(self, step: int) -> dict[str, PyTree]:
        return dict(self._checkpointer.checkpointables_metadata(step).metadata)

    def _compare(self, step: int, templates: Parts) -> None:
        saved = self._saved(step)
        for name, template in _not_empty(templates).items():
            _compare(name, saved.get(name), template, f"{self._folder}/{step}")

    def close(self) -> None:
        """Wait until everything is written."""
        self._checkpointer.close()


@contextlib.contextmanager
def opened(
    folder: str | os.PathLike[str], keep_last: int = 1, keep_every: int = 0, writer: bool = False
) -> Iterator[Checkpoints]:
    """`Checkpoints` that are closed at the end, whatever happens."""
    checkpoints = Checkpoints(folder, keep_last, keep_every, writer)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def exist(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has a folder of checkpoints."""
    return (layout.as_path(folder) / layout.CHECKPOINTS).is_dir()


def _not_empty(parts: Parts) -> dict[str, PyTree]:
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
