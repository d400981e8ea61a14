"""The training loop: dispatch a step, read the metrics of the one before, ask the hooks. Resumes by itself.

Batch and randomness are functions of (seed, step), so a run that was stopped and started again is the same run.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from diffrep_jax import data, hosts, peers, sharding
from diffrep_jax.errors import UserError
from diffrep_jax.fields import construct
from diffrep_jax.methods.base import Method, Unconditional, Views, not_in_dtype
from diffrep_jax.runs import checkpoint, layout, lock, provenance, space, weights
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.runs.weights import same_network
from diffrep_jax.train import cost, init_from, joined, loggers, optimizer, together
from diffrep_jax.train.monitor import Monitor
from diffrep_jax.train.profiling import Profiler
from diffrep_jax.train.settings import Settings
from diffrep_jax.train.state import TrainState, abstract_state, create_state, laid_out_as, with_fresh_optimizer
from diffrep_jax.train.step import compile_traced, make_train_step, trace_step
from diffrep_jax.train.stop import StopSignal
from diffrep_jax.train.writer import Writer
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

LEARNED_WITH = ("seed", "method", "data", "optim", "train", "mesh")  # sections whose changes are recorded


class Hook(Protocol):
    """Something that is done with the state every now and then."""

    def check(self) -> None:
        """Open all that it will need, before anything is computed or written; UserError where that is not there."""
        ...

    def due(self, step: int) -> bool: ...

    def missed(self, step: int) -> bool:
        """Whether it was due at a step and is not done: the process ended before."""
        ...

    def __call__(self, step: int, state: TrainState, writer: Writer) -> None: ...


@dataclasses.dataclass(frozen=True)
class Training:
    """All that a run's training is made of, checked and built: nothing of it is computed or written yet.

    template: the state's shapes; moved: the same in the layout that other kinds of devices have for it.
    """

    run: Run
    method: Method
    settings: Settings
    dataset: data.ImageDataset
    mesh: Mesh
    optimizer: optax.GradientTransformation
    template: TrainState
    moved: TrainState


def train(
    method: Method, run: Run, data_dir: pathlib.Path | None, hooks: Iterable[Hook] = (), force_unlock: bool = False
) -> TrainState:
    """Train to `config.train.total_steps` from the newest checkpoint of the run, or from scratch.

    Raises UserError for bad settings, where another process trains the run, and where the loss stops being finite;
    SystemExit(143) on SIGTERM, (130) on SIGINT, once saved.
    """
    weights.refuse_export(run.folder)
    training, hooks = prepare(method, run, data_dir), list(hooks)
    for hook in hooks:
        hook.check()
    space.warn_if_short(run.folder, space.size_of(training.template.parts()), training.settings.keep_last + 1)
    locked = lock.held(run.folder, force_unlock) if hosts.is_first() else contextlib.nullcontext()
    with layout.removed_if_unused(run.folder), locked, StopSignal() as stop:
        return _train(training, hooks, stop)


def _train(training: Training, hooks: Iterable[Hook], stop: StopSignal) -> TrainState:
    settings, run = training.settings, training.run
    with checkpoint.opened(run.folder, settings.keep_last, settings.keep_every, writer=True) as checkpoints:
        start = _check_checkpoint(training, checkpoints)
        if not hosts.is_alone():
            peers.compare(together.facts(run, training.dataset, start))
        if start >= settings.total_steps:
            log.info("That is all of train.total_steps=%d; raise it to train on.", settings.total_steps)
            return _restored(training, checkpoints)
        if start:
            _check_same_codes(training, checkpoints)
        networks = _networks_to_begin_with(training, checkpoints)
        batches = _batches(training, start)
        first = sharding.put_batch(next(batches), training.mesh)
        if hosts.is_first():
            _record_start(training, start)  # only now: whatever is wrong has been refused before
        with concurrent.futures.ThreadPoolExecutor(1) as meanwhile:
            making = meanwhile.submit(_make_state, training, checkpoints, networks)
            compiled = _Compiled(training, first)
            state = making.result()
        placed = (sharding.put_batch(batch, training.mesh) for batch in batches)
        return _loop(training, checkpoints, compiled, _Steps(state, itertools.chain([first], placed), hooks, stop))


def _record_start(training: Training, start: int) -> None:
    """Write `config.json`, and into `run.json` this start with what differs from the one before."""
    run, dataset = training.run, training.dataset
    identity = {"name": dataset.name, "split": dataset.split, "path": str(dataset.source.path), "images": len(dataset)}
    identity["fingerprint"] = dataset.fingerprint()[:16]
    changed = {}
    if start and run_config.is_run(run.folder):
        changed = run_config.differences(run_config.load(run.folder), run.config, LEARNED_WITH)
        changed = {name: pair for name, pair in changed.items() if pair[0] is not None}  # an earlier version had it not
        before = provenance.starts(run.folder)
        theirs = identity | (before[-1].get("data", {}) if before else {})  # earlier versions kept less of it
        changed |= {f"data {name}": (theirs[name], value) for name, value in identity.items() if theirs[name] != value}
        if "data fingerprint" in changed or "data images" in changed:
            counts = f"{theirs['images']:,} then, {identity['images']:,} now"
            log.warning("The training images are not those of the last start: %s.", counts)
    for name, (old, new) in changed.items():
        log.warning("From step %d on %s is %r, it was %r.", start, name, new, old)
    run_config.save(run.config, run.folder)
    provenance.record_start(run.folder, start, training.mesh, data=identity, changed=changed)


def prepare(method: Method, run: Run, data_dir: pathlib.Path | None) -> Training:
    """Open the data and check the settings against the devices; raises UserError for what does not fit."""
    config = run.config
    settings = construct(Settings, config.train, "config.train")
    loggers.check_installed(settings.loggers)
    mesh = sharding.make_mesh(**config.mesh)
    sharding.check_divides(settings.microbatch, mesh, "train.batch_size (or train.microbatch_size)")
    if method.views:
        sharding.check_divides(method.views.batch_size, mesh, method.views.place.removeprefix("config."))
    if not checkpoint.exist(run.folder):
        init_from.check(settings.init_from, method)
    section = config.data
    dataset = data.open_dataset(
        section.name,
        split=section.split,
        image_size=section.image_size,
        channels=section.channels,
        data_dir=data_dir,
    )
    form = joined.elementwise(mesh)
    optim, other = (optimizer.build(config.optim, method, f) for f in (form, joined.other(form)))
    templates = [abstract_state(method, o, mesh) for o in (optim, other)]
    return Training(run, method, settings, dataset, mesh, optim, templates[0], templates[1])


@dataclasses.dataclass(frozen=True)
class _Steps:
    """What the loop starts with and listens to."""

    state: TrainState
    batches: Iterable[Any]
    hooks: Iterable[Hook]
    stop: StopSignal


def _loop(training: Training, checkpoints: checkpoint.Checkpoints, compiled: "_Compiled", steps: _Steps) -> TrainState:
    """Steps until the last one, a signal or the time is up."""
    settings, run, state, stop = training.settings, training.run, steps.state, steps.stop
    start, leave = int(state.step), None
    with (
        _writer(training, start) as writer,
        Monitor(settings, start, writer, training.mesh.size) as monitor,
        Profiler(run.folder, settings.profile_steps) as profiler,
    ):
        missed = [hook for hook in steps.hooks if start and hook.due(start) and hook.missed(start)]
        _ask(missed, start, state, writer, monitor, stop)
        for step, batch in zip(range(start + 1, settings.total_steps + 1), steps.batches, strict=False):
            if not compiled.knows(batch):  # the first one with views
                with monitor.paused():
                    compiled.add(batch)
            profiler.start(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = compiled(state, batch)
            profiler.stop(step, metrics)
            stop.saving = True
            monitor.record(step, metrics, compiled.seconds_at_peak(batch))
            if step == settings.total_steps or step % settings.checkpoint_every == 0:
                _save(run, monitor, checkpoints, step, state)
            limit = peers.Stop(f"train.max_minutes={settings.max_minutes}") if monitor.out_of_time() else None
            leave = peers.stop_at(step, stop.wish or limit)
            if not leave:
                _ask(steps.hooks, step, state, writer, monitor, stop)
                leave = stop.wish if jax.process_count() == 1 else None
            if leave:
                _save(run, monitor, checkpoints, step, state)
                log.info("Stopped by %s; saved at step %d. The same command goes on from there.", leave.why, step)
                break
    if (ended := leave or stop.wish) and ended.exit_code:
        raise SystemExit(ended.exit_code)
    return state


def _ask(
    hooks: Iterable[Hook], step: int, state: TrainState, writer: Writer, monitor: Monitor, stop: StopSignal
) -> None:
    """Call the hooks that are due; a signal ends the one that is at work, and the others are not called."""
    for hook in hooks:
        if not hook.due(step):
            continue
        with monitor.paused():
            if jax.process_count() == 1:
                stop.attempt(lambda hook=hook: hook(step, state, writer))
            else:  # the others compute on
                hook(step, state, writer)


def _save(run: Run, monitor: Monitor, checkpoints: checkpoint.Checkpoints, step: int, state: TrainState) -> None:
    """Never a state whose loss is not finite; UserError where the run's folder was removed: it would be made again."""
    monitor.check()
    if not run_config.is_run(run.folder):
        raise UserError(
            f"{run.folder} was removed or renamed while it was trained; restore it, or start again in a new --workdir."
        )
    checkpoints.save(step, state.parts())


def _writer(training: Training, start: int) -> Writer:
    run, names = training.run, training.settings.loggers
    return Writer(run.folder, start_step=start, active=hosts.is_first(), loggers=names, config=run.config)


class _Compiled:
    """The training step, compiled for each form that batches have."""

    def __init__(self, training: Training, batch: Any):
        config, settings = training.run.config, training.settings
        self._training = training
        self._step = make_train_step(
            training.method,
            training.optimizer,
            ema_decay=config.optim.ema_decay,
            seed=config.seed,
            microbatches=settings.batch_size // settings.microbatch,
            elementwise=joined.elementwise(training.mesh),
        )
        self._by_form: dict[Any, Callable[..., Any]] = {}
        self._at_peak: dict[Any, float] = {}
        self.add(batch)

    def knows(self, batch: Any) -> bool:
        return jax.tree.structure(batch) in self._by_form

    def add(self, batch: Any) -> None:
        began = time.perf_counter()
        log.info("Compiling the training step (cached for the next start) ...")
        training, form = self._training, jax.tree.structure(batch)
        traced = trace_step(self._step, training.template, batch, training.mesh)
        self._at_peak[form] = cost.seconds_at_peak(traced, training.mesh, training.method.dtype)
        self._by_form[form] = compile_traced(traced)
        log.info("Compiled in %.1f s.", time.perf_counter() - began)

    def seconds_at_peak(self, batch: Any) -> float:
        """What a step with this batch would take at the devices' peak; 0 where that is not known."""
        return self._at_peak[jax.tree.structure(batch)]

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        return self._by_form[jax.tree.structure(batch)](state, batch)


def _batches(training: Training, start: int) -> Iterator[Any]:
    """The batches from the step `start` on, and in them under "views" the method's, from `views.start_step` on."""
    config, settings, dataset = training.run.config, training.settings, training.dataset
    devices = f"{training.mesh.size} x {training.mesh.devices.flat[0].device_kind}"
    how = f"batch {settings.batch_size} on {devices}, steps {start} to {settings.total_steps}"
    log.info("%s: %d training images, %s", config.data.name, len(dataset), how)
    log.info("The networks compute in %s%s.", training.method.dtype, not_in_dtype(training.method))
    loading = data.Loading(
        seed=config.seed,
        batch_size=settings.batch_size,
        start_step=start,
        workers=config.data.workers,
        worker_kind=config.data.worker_kind,
        max_bad_fraction=config.data.max_bad_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    images = data.train_batches(dataset, loading, flip=config.data.flip)
    views = training.method.views
    return images if views is None else _with_views(images, views, dataset, loading)


def _with_views(
    images: Iterator[Any], views: Views, dataset: data.ImageDataset, loading: data.Loading
) -> Iterator[Any]:
    start = loading.start_step
    first = max(start, views.start_step)
    loading = dataclasses.replace(loading, batch_size=views.batch_size, start_step=first)
    log.info("From step %d on also two views of each of %d images a step.", views.start_step, views.batch_size)
    pairs = data.view_batches(dataset, loading, augment=views.augment, jitter=views.jitter)
    with_views = ({**batch, "views": pair} for batch, pair in zip(images, pairs, strict=False))
    return itertools.chain(itertools.islice(images, first - start), with_views)


def _check_checkpoint(training: Training, checkpoints: checkpoint.Checkpoints) -> int:
    """The step of the newest checkpoint, which fits the state; 0 where there is none."""
    if checkpoints.latest_step() is None:
        return 0
    checkpoints.check(_saved_templates(training, checkpoints))
    log.info("Going on from the checkpoint of step %d.", checkpoints.existing_step())
    return checkpoints.existing_step()


def _check_same_codes(training: Training, checkpoints: checkpoint.Checkpoints) -> None:
    """Raise UserError where a prior would go on with the codes of another network than those that it has learned."""
    method, ours = training.method, training.dataset.statistics.get("fingerprint")
    if ours is None or not isinstance(method, Unconditional):
        return
    kept = method.statistics(checkpoints.restore({"batch_stats": training.template.batch_stats}))
    theirs = np.asarray(kept["fingerprint"])
    if theirs.any() and not same_network(theirs, np.asarray(ours)):
        raise UserError(
            f"The codes in --data_dir are of another auto-encoder, or of another state of it, than those that "
            f"{training.run.folder} was trained on: train a new prior in another --workdir."
        )


def _saved_templates(training: Training, checkpoints: checkpoint.Checkpoints) -> dict[str, PyTree]:
    """The parts of the state that the checkpoint has to have: all, but the optimizer's only if it is there.

    A run may have begun on other devices, where its optimizer's state had the other layout.
    """
    parts = training.template.parts()
    if "opt_state" not in checkpoints.saved_parts():
        del parts["opt_state"]
    elif checkpoints.has_layout("opt_state", training.moved.opt_state):
        parts["opt_state"] = training.moved.opt_state
    return parts


def _restored(training: Training, checkpoints: checkpoint.Checkpoints) -> TrainState:
    """The newest state; its opt_state is None where the checkpoint has none, that of an imported run."""
    parts = checkpoints.restore(_saved_templates(training, checkpoints))
    parts.setdefault("opt_state", None)
    return laid_out_as(TrainState(**parts), training.template)


def _networks_to_begin_with(training: Training, checkpoints: checkpoint.Checkpoints) -> PyTree:
    if checkpoints.latest_step() is None:
        return init_from.networks_of(training.settings.init_from, training.method, training.mesh)
    init_from.check_same_beginning(training.settings.init_from, training.run.folder)
    return {}


def _make_state(training: Training, checkpoints: checkpoint.Checkpoints, networks: PyTree) -> TrainState:
    method, optim = training.method, training.optimizer
    if checkpoints.latest_step() is None:
        statistics = training.dataset.statistics
        return create_state(method, optim, training.mesh, training.run.config.seed, networks, statistics)
    state = _restored(training, checkpoints)
    if state.opt_state is None:
        log.info("The checkpoint was imported and has no optimizer state: the optimizer starts afresh.")
        return with_fresh_optimizer(method, state, optim)
    return state
