"""The training loop: dispatch a step, read the metrics of the one before, ask the hooks. Resumes by itself.

Batch and randomness are functions of (seed, step), so a run that was stopped and started again is the same run.
"""

import concurrent.futures
import dataclasses
import itertools
import logging
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import jax

from diffrep_jax import config as configs
from diffrep_jax import data
from diffrep_jax.train import checkpoint, init_from, joined, optimizer, provenance, sharding
from diffrep_jax.train.monitor import Monitor
from diffrep_jax.train.runtime import StopSignal, is_first
from diffrep_jax.train.state import TrainState, abstract_state, create_state, laid_out_as, with_fresh_optimizer
from diffrep_jax.train.step import compile_step, make_train_step
from diffrep_jax.train.writer import Writer
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


class Hook(Protocol):
    """Something that is done with the state every now and then."""

    def due(self, step: int) -> bool: ...

    def __call__(self, step: int, state: TrainState, writer: Writer) -> None: ...


def train(
    method: Any, config: Any, workdir: pathlib.Path, data_dir: pathlib.Path | None, hooks: Iterable[Hook] = ()
) -> TrainState:
    """Train to `config.train.total_steps` from the newest checkpoint in `workdir`, or from scratch.

    Raises UserError for bad settings and where the loss stops being finite; SystemExit(143) on SIGTERM, once saved.
    """
    settings = config.train
    mesh = sharding.make_mesh(**config.mesh)
    microbatch = settings.batch_size if settings.microbatch_size == -1 else settings.microbatch_size
    sharding.check_batch(settings.batch_size, microbatch, mesh)
    if method.views:
        sharding.check_views(method.views.batch_size, mesh)
    dataset = data.open_dataset(
        config.data.name,
        split=config.data.split,
        image_size=config.data.image_size,
        channels=config.data.channels,
        data_dir=data_dir,
    )
    elementwise = joined.elementwise(mesh)
    optim = optimizer.build(config.optim, method, elementwise)
    step_function = make_train_step(
        method,
        optim,
        ema_decay=config.optim.ema_decay,
        seed=config.seed,
        microbatches=settings.batch_size // microbatch,
        elementwise=elementwise,
    )
    with checkpoint.opened(workdir, settings.keep_last, settings.keep_every) as checkpoints:
        template = abstract_state(method, optim, mesh)
        # A run may have begun on other devices, where its optimizer's state had the other layout.
        moved = abstract_state(method, optimizer.build(config.optim, method, joined.other(elementwise)), mesh)
        saved = checkpoints.fitting(template, moved)
        start = checkpoints.check(saved)
        if start:
            log.info("Going on from the checkpoint of step %d.", start)
        if start >= settings.total_steps:
            log.info("That is all of train.total_steps=%d; raise it to train on.", settings.total_steps)
            return laid_out_as(checkpoints.restore(saved), template)
        networks = _networks_to_begin_with(settings.init_from, method, mesh, checkpoints, workdir)
        log.info("%s: %d training images, %s", config.data.name, len(dataset), _describe(mesh, start, settings))
        batches = _batches(method.views, config, dataset, start)
        first = sharding.put_batch(next(batches), mesh)
        if is_first():
            configs.save(config, workdir)  # only now: whatever is wrong has been refused before
            dataset.keep(workdir)
            provenance.record_start(workdir, start, mesh)
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            making = beside.submit(
                _make_state, method, optim, mesh, config.seed, checkpoints, (saved, template), networks
            )
            compiled = {jax.tree.structure(first): _compile(step_function, template, first, mesh)}
            state = making.result()
        placed = (sharding.put_batch(batch, mesh) for batch in batches)
        with (
            StopSignal() as stop,
            Writer(workdir, start_step=start, active=is_first()) as writer,
            Monitor(settings, start, writer) as monitor,
        ):
            steps = zip(range(start + 1, settings.total_steps + 1), itertools.chain([first], placed), strict=False)
            for step, batch in steps:
                if (form := jax.tree.structure(batch)) not in compiled:  # the first one with views
                    with monitor.paused():
                        compiled[form] = _compile(step_function, template, batch, mesh)
                state, metrics = compiled[form](state, batch)
                monitor.record(step, metrics)
                leave = stop.received or monitor.out_of_time()
                if leave or step == settings.total_steps or step % settings.checkpoint_every == 0:
                    monitor.check()  # never save a state whose loss is not finite
                    checkpoints.save(step, state)
                if leave:
                    why = "SIGTERM" if stop.received else f"train.max_minutes={settings.max_minutes}"
                    log.info("Stopped by %s; saved at step %d. The same command goes on from there.", why, step)
                    break
                for hook in hooks:
                    if hook.due(step):
                        with monitor.paused():
                            hook(step, state, writer)
    if stop.received:
        raise SystemExit(143)
    return state


def _batches(views: Any, config: Any, dataset: Any, start: int) -> Iterator[Any]:
    """The batches from the step `start` on, and in them under "views" the method's, from `views.start_step` on."""
    loading = data.Loading(
        seed=config.seed,
        batch_size=config.train.batch_size,
        start_step=start,
        workers=config.data.workers,
        worker_kind=config.data.worker_kind,
        max_bad_fraction=config.data.max_bad_fraction,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    images = data.train_batches(dataset, loading, flip=config.data.flip)
    if not views:
        return images
    first = max(start, views.start_step)
    loading = dataclasses.replace(loading, batch_size=views.batch_size, start_step=first)
    log.info("From step %d on also two views of each of %d images a step.", views.start_step, views.batch_size)
    pairs = data.view_batches(dataset, loading, augment=views.augment, jitter=views.jitter)
    with_views = ({**batch, "views": pair} for batch, pair in zip(images, pairs, strict=False))
    return itertools.chain(itertools.islice(images, first - start), with_views)


def _networks_to_begin_with(
    run: str, method: Any, mesh: Any, checkpoints: checkpoint.Checkpoints, workdir: pathlib.Path
) -> PyTree:
    if checkpoints.latest_step() is None:
        return init_from.networks_of(run, method, mesh)
    init_from.check_same_beginning(run, workdir)
    return {}


def _make_state(
    method: Any,
    optim: Any,
    mesh: Any,
    seed: int,
    checkpoints: checkpoint.Checkpoints,
    templates: tuple[TrainState, TrainState],
    networks: PyTree,
) -> TrainState:
    if checkpoints.latest_step() is None:
        return create_state(method, optim, mesh, seed, networks)
    saved, wanted = templates
    state = laid_out_as(checkpoints.restore(saved), wanted)
    if state.opt_state is None:
        log.info("The checkpoint was imported and has no optimizer state: the optimizer starts afresh.")
        return with_fresh_optimizer(method, state, optim)
    return state


def _describe(mesh: Any, start: int, settings: Any) -> str:
    devices = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    return f"batch {settings.batch_size} on {devices}, steps {start} to {settings.total_steps}"


def _compile(step_function: Any, state: TrainState, batch: Any, mesh: Any) -> Any:
    began = time.perf_counter()
    log.info("Compiling the training step (cached for the next start) ...")
    compiled = compile_step(step_function, state, batch, mesh)
    log.info("Compiled in %.1f s.", time.perf_counter() - began)
    return compiled
