"""Checkpoints of a run: Orbax, asynchronous and atomic, one item for each part of the state, checksums of all files.

The parts are saved apart, so that a task reads the averaged weights and nothing else. What a run that was killed in
mid-save leaves behind is ignored and removed by the next one that writes; a checkpoint that was damaged since is named
and the one before it used.
"""

import concurrent.futures
import contextlib
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from diffrep_jax.errors import UserError
from diffrep_jax.runs import checksums, layout
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

INCOMPLETE = "it was not completed"
WAITS, WAIT_SECONDS = 10, 0.5  # of a reader, for the newest checkpoint to be completed where there is no other

Parts = Mapping[str, PyTree]  # {name: tree of arrays, or of ShapeDtypeStructs with shardings}


class Checkpoints:
    """The checkpoints in `<folder>/checkpoints`: the last `keep_last`, and every one at a multiple of `keep_every`.

    keep_every = 0 keeps no others. Open to read (`writer` False) it writes and deletes nothing.
    """

    def __init__(self, folder: str | os.PathLike[str], keep_last: int = 1, keep_every: int = 0, writer: bool = False):
        policies: Any = ocp.training.preservation_policies
        decisions: Any = ocp.training.save_decision_policies
        kept = [policies.LatestN(keep_last)]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        path = layout.as_path(folder) / layout.CHECKPOINTS
        self._folder = path if layout.in_object_storage(path) else path.resolve()
        self._writer = writer
        if writer:  # it waits for all processes, and so does what it does
            self._checkpointer = ocp.training.Checkpointer(
                self._folder,
                preservation_policy=policies.AnyPreservationPolicy(kept),
                save_decision_policy=decisions.ContinuousCheckpointingPolicy(),
                cleanup_tmp_directories=True,
            )
        self._sealing = concurrent.futures.ThreadPoolExecutor(1)
        self._sealed: concurrent.futures.Future[None] | None = None  # of the last checkpoint
        self._verdicts: dict[tuple[int, Any], str | None] = {}  # what is wrong with a step's parts, None: nothing
        self._named: set[tuple[int, str]] = set()  # in the log

    def latest_step(self, parts: Collection[str] | None = None) -> int | None:
        """The step of the newest whole checkpoint, judged by these parts; None where there is no checkpoint.

        Damaged ones are named in the log. Raises UserError where all of them are damaged.
        """
        for waits_left in reversed(range(WAITS + 1)):
            steps = sorted(self._steps(), reverse=True)
            sealed = any(checksums.is_sealed(self._folder / str(step)) for step in steps)
            for step in steps:
                if self._damage(step, parts, sealed) is None:
                    return step
            if not steps:
                return None
            why = self._verdicts[steps[0], _key(parts)]
            if self._writer or why != INCOMPLETE or not waits_left:
                break
            time.sleep(WAIT_SECONDS)
            self._verdicts.clear()
        raise UserError(f"No whole checkpoint is left in {self._folder}; in the newest, {steps[0]}, {why}.")

    def _damage(self, step: int, parts: Collection[str] | None, sealed: bool) -> str | None:
        """What is wrong with a step. Without any checksums in the run it is taken for one of an earlier version."""
        if (step, _key(parts)) not in self._verdicts:
            folder = self._folder / str(step)
            if checksums.is_sealed(folder):
                why = checksums.damage(folder, parts)
            else:
                why = INCOMPLETE if sealed else None
            if why is not None and (step, why) not in self._named:
                self._named.add((step, why))
                log.warning("The checkpoint of step %d in %s is damaged (%s): passed over.", step, self._folder, why)
            self._verdicts[step, _key(parts)] = why
        return self._verdicts[step, _key(parts)]

    def existing_step(self, parts: Collection[str] | None = None) -> int:
        """As `latest_step`; UserError where there is no checkpoint."""
        step = self.latest_step(parts)
        if step is None:
            raise UserError(f"No checkpoint in {self._folder}; train first (--task=train).")
        return step

    def saved_parts(self) -> Collection[str]:
        """The names of the parts that the newest whole checkpoint has."""
        return self._saved(self.existing_step()).keys()

    def has_layout(self, part: str, template: PyTree) -> bool:
        """Whether a part of it has the leaves of a template, by path and shape."""
        return _shapes(self._saved(self.existing_step())[part]) == _shapes(template)

    def save(self, step: int, parts: Parts) -> None:
        """Start writing; returns as soon as the arrays have been copied. A whole step that exists is left as it is."""
        if self._sealed is not None:
            self._sealed.result()  # raises what its disk refused
        if step == self.latest_step():
            return
        newer = [saved.step for saved in self._checkpointer.checkpoints if saved.step >= step]
        for damaged in newer:  # passed over when the run went on: Orbax takes no step below its newest
            self._checkpointer.delete(damaged)
        self._checkpointer.save_checkpointables_async(step, _not_empty(parts), force=True)
        self._verdicts = {(step, None): None}
        if jax.process_index() == 0:
            self._sealed = self._sealing.submit(self._seal, step)

    def _seal(self, step: int) -> None:
        """Wait until Orbax has put the checkpoint into its place, then write its checksums."""
        folder = self._folder / str(step)
        while not folder.exists() or self._checkpointer.is_saving_in_progress():
            if not self._checkpointer.is_saving_in_progress() and not folder.exists():
                time.sleep(0.2)
                if not folder.exists():
                    return  # it was not saved: Orbax says why
            time.sleep(0.02)
        checksums.seal(folder)

    def check(self, templates: Parts) -> None:
        """Raise UserError where the newest whole checkpoint does not fit the templates."""
        self._compare(self.existing_step(), templates)

    def restore(self, templates: Parts) -> dict[str, PyTree]:
        """Parts of the newest checkpoint in which these are whole, laid out as the templates say."""
        parts = tuple(_not_empty(templates))
        step = self.existing_step(parts)
        try:
            self._compare(step, templates)
            with _for_this_process():
                return {**templates, **ocp.load_checkpointables(self._folder / str(step), _not_empty(templates))}
        except Exception:
            if self._writer or self._is_newest(step, parts):
                raise
        return self.restore(templates)  # a training deletes this one, or has, and has written others

    def _is_newest(self, step: int, parts: Collection[str]) -> bool:
        """Whether a step is still the newest whole one, or there is none at all, when all are judged anew."""
        self._verdicts.clear()
        try:
            return self.latest_step(parts) in (step, None)
        except UserError:
            return True

    def _steps(self) -> list[int]:
        if self._writer:
            return [saved.step for saved in self._checkpointer.checkpoints]
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return [int(name) for name in names if name.isdecimal()]

    def _saved(self, step: int) -> dict[str, PyTree]:
        with _for_this_process():
            return dict(ocp.checkpointables_metadata(self._folder / str(step)).metadata)

    def _compare(self, step: int, templates: Parts) -> None:
        saved = self._saved(step)
        for name, template in _not_empty(templates).items():
            _compare(name, saved.get(name), template, f"{self._folder}/{step}")

    def close(self) -> None:
        """Wait until everything is written."""
        self._sealing.shutdown()
        if self._writer:
            self._checkpointer.close()
        if self._sealed is not None:
            self._sealed.result()


def _for_this_process() -> contextlib.AbstractContextManager[object]:
    """Inside, what Orbax reads it reads without waiting for the other processes."""
    if jax.process_count() == 1:
        return contextlib.nullcontext()
    me = jax.process_index()
    if not hasattr(ocp.Context, "multiprocessing"):  # earlier versions of Orbax
        options = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
        return ocp.Context(multiprocessing_options=options)
    context = ocp.Context()
    context.multiprocessing.primary_host = me
    context.multiprocessing.active_processes = {me}
    return context


def _key(parts: Collection[str] | None) -> Any:
    return None if parts is None else tuple(sorted(parts))


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
