"""Batches from a data set: shuffled without end for training, in order and once for evaluation."""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np

from diffrep_jax import discovery
from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntries, BadEntry, NoneReadable, Replacing
from diffrep_jax.data.datasets import ImageDataset
from diffrep_jax.data.transforms import flip as flip_image
from diffrep_jax.data.views import twice, two_views
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import Count, Within, check

Batch = dict[str, np.ndarray]
Example = dict[str, Any]

WORKER_KINDS = ("thread", "process")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
    """Which batches of an endless stream to load, and how; raises UserError for what cannot be.

    Attributes:
      seed, batch_size: batch k of a stream is a function of both and of k alone.
      start_step: the first k.
      workers: how many read ahead, each busy with a batch of its own (so that many batches are in memory); 0 reads in
        the calling thread. worker_kind: one of WORKER_KINDS; processes start in seconds and pay where the work of
        threads is Python's. Neither changes the batches. The workers start with the first batch and end with the
        iterator.
      max_bad_fraction: of the images that may be unreadable; the next readable one takes the place of each.
      process_index, process_count: batch_size is the global one: each of `process_count` processes gets a contiguous
        part of it; the parts joined in order are the batch that a single process would see.
    """

    seed: int
    batch_size: int
    start_step: int
    workers: int
    worker_kind: str = "thread"
    max_bad_fraction: float = 0.0
    process_index: int = 0
    process_count: int = 1

    def __post_init__(self):
        lowest = {"seed": 0, "batch_size": 1, "start_step": 0, "workers": 0}
        for name, least in lowest.items():
            if (value := getattr(self, name)) < least:
                raise UserError(f"{name} is {value}: use {least} or more.")
        if self.worker_kind not in WORKER_KINDS:
            raise unknown("kind of workers", self.worker_kind, WORKER_KINDS, "data.worker_kind")
        index, count = self.process_index, self.process_count
        if not 0 <= index < count:
            raise UserError(f"process_index is {index}: use 0 to {count - 1}, as there are {count}.")
        if self.batch_size % count:
            raise UserError(f"batch_size {self.batch_size} does not divide among {count} processes: use a multiple.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The config's section `data`.

    Attributes:
      name: the data set; split: of it, that is trained on; image_size, channels: of the images that the model takes.
      flip: mirror images left-right at random.
      workers, worker_kind, max_bad_fraction: as in `Loading`.
      max_pixels, max_bytes: the most that one image may have; more of the first, by its header, or of the second, as it
        is stored, makes it unreadable.
    """

    name: str = "digits"
    image_size: Annotated[int, Within(1, 4096)] = 64
    channels: Count = 3
    split: str = "train"
    flip: bool = True
    workers: Annotated[int, Within(0, 1024)] = 8
    worker_kind: str = "thread"
    max_bad_fraction: Annotated[float, Within(0, 1)] = 0.001
    max_pixels: Count = limits.Limits.pixels
    max_bytes: Count = limits.Limits.bytes

    changeable: ClassVar[tuple[str, ...]] = (  # when a run goes on
        "workers",
        "worker_kind",
        "max_bad_fraction",
        "max_pixels",
        "max_bytes",
    )

    def __post_init__(self):
        check(Settings, vars(self), "config.data")
        if self.worker_kind not in WORKER_KINDS:
            raise unknown("kind of workers", self.worker_kind, WORKER_KINDS, "config.data.worker_kind")
        if self.name not in (known := discovery.names("diffrep_jax.data.datasets", "Dataset")):
            raise unknown("data set", self.name, known, "config.data.name")


def train_batches(dataset: ImageDataset, loading: Loading, *, flip: bool) -> Iterator[Batch]:
    """Batches `start_step`, `start_step` + 1, ... without end.

    "image" is [b, h, w, c], uint8 where the data set has images (`pixels.to_float` makes them [-1, 1] where they are
    used) and float32 where it has codes; other entries are arrays [b] or [b, k].
    Each epoch is a fresh permutation; what is left over at its end begins the next batch.

    flip: mirror each image left-right with probability 1/2.
    """
    # Each random step has its own seed, so that one added later would not change the order of the data.
    # Grain seeds epoch e with seed + e: derived seeds keep run s, epoch 1 from being run s + 1, epoch 0.
    shuffle_seed, flip_seed = _seeds(loading.seed, stream=())
    examples = _shuffled(dataset, loading, shuffle_seed)
    if flip:
        examples = examples.random_map(_random_flip, seed=flip_seed)  # after repeat: drawn anew each epoch
    return _batches(examples, loading)


def view_batches(
    dataset: ImageDataset, loading: Loading, *, augment: bool = True, jitter: float = 1.0
) -> Iterator[Batch]:
    """As `train_batches`, in an order of its own: "view1" and "view2" in place of "image", see `views`.

    augment: False makes both views the image as it is. jitter: the strength of the change of colours.
    """
    shuffle_seed, view_seed = _seeds(loading.seed, stream=(1,))
    examples = _shuffled(dataset, loading, shuffle_seed)
    if augment:
        examples = examples.random_map(functools.partial(two_views, strength=jitter), seed=view_seed)
    else:
        examples = examples.map(twice)
    return _batches(examples, loading)


def ordered_batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    num_images: int | None = None,
    indices: Sequence[int] | None = None,
    max_bad_fraction: float = 0.0,
) -> Iterator[Batch]:
    """The data set once and in order, without flips, batched as in `train_batches`; the last batch is short.

    indices: these images in this order instead. num_images: stop after so many, or at the end of these.
    max_bad_fraction: of the data set that may be unreadable; these images are left out. Raises NoneReadable where none
    is left.
    """
    for value, what in ((batch_size, "batch_size"), (1 if num_images is None else num_images, "num_images")):
        if value < 1:
            raise UserError(f"{what} is {value}: use 1 or more.")
    order = (range(len(dataset)) if indices is None else indices)[:num_images]
    examples = _readable(dataset, order, BadEntries(len(dataset), max_bad_fraction))
    parts = iter(lambda: list(itertools.islice(examples, batch_size)), [])
    return (_collate(part) for part in parts)


def _seeds(seed: int, stream: tuple[int, ...]) -> tuple[int, int]:
    """Two seeds for the steps of a stream; streams of one seed have nothing in common."""
    first, second = np.random.SeedSequence(seed, spawn_key=stream).generate_state(2)
    return int(first), int(second)


def _shuffled(dataset: ImageDataset, loading: Loading, seed: int) -> Any:
    """A Grain data set of the examples without end, each epoch shuffled anew."""
    import grain

    if len(dataset) < 1:
        raise UserError("The data set has no images to train on: use another split.")
    readable = Replacing(dataset, BadEntries(len(dataset), loading.max_bad_fraction))
    return grain.MapDataset.source(readable).shuffle(seed=seed).repeat()


def _batches(examples: Any, loading: Loading) -> Iterator[Batch]:
    """This process's parts of the batches of a Grain data set of examples, read ahead."""
    import grain

    # Nothing is dropped; without drop_remainder Grain rounds the endless length up, out of len()'s range.
    workers, count = loading.workers, loading.process_count
    parts = examples.batch(loading.batch_size // count, drop_remainder=True, batch_fn=_collate)
    # Part j of the stream is part j % n of global batch j // n.
    parts = parts[loading.start_step * count + loading.process_index :: count]
    if loading.worker_kind == "thread" or workers == 0:
        # Batches leave in order: with two to spare, no thread waits for the one before it.
        ahead = workers + 2 if workers else 0
        threads = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=ahead)
        return _until_closed(parts.map(_finish).to_iter_dataset(threads))
    _tell_absl_that_flags_are_parsed()
    in_caller = parts.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    return _until_closed(in_caller.mp_prefetch(processes, functools.partial(_begin_worker, limits.used())).map(_finish))


def _until_closed(batches: Any) -> Iterator[Batch]:
    """The batches of a Grain data set; its workers end with this iterator, or with the program."""
    held = [iter(batches)]
    unending = (next(held[0]) for _ in itertools.count())
    # At the end of the program too, before Python takes apart what Grain's iterators need to end.
    weakref.finalize(unending, lambda: held.pop().close())
    return unending


def _begin_worker(used: limits.Limits, worker: int, workers: int) -> None:
    """Called in each worker process: its limits, and its end, so that none is left where the program was killed."""
    limits.use(used)

    def wait() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _tell_absl_that_flags_are_parsed() -> None:
    """Grain asks absl's flags, which are not to be read before a program has parsed them; ours has none."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def _readable(dataset: ImageDataset, order: Sequence[int], bad: BadEntries) -> Iterator[Example]:
    left, first = len(order), None
    for index in map(int, order):
        try:
            example = dict(dataset[index])
        except BadEntry as error:
            bad.note(index, error)
            left, first = left - 1, first or error
        else:
            yield example
    if first and not left:
        raise NoneReadable(len(order), first)


def _random_flip(example: Example, rng: np.random.Generator) -> Example:
    if rng.random() < 0.5:
        return {**example, "image": flip_image(example["image"])}
    return example


def _collate(examples: Sequence[Example]) -> Batch:
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def _finish(batch: Batch) -> Batch:
    """The batch in memory of this process alone: a worker process hands over its own, which it will use again."""
    return {key: np.array(values) for key, values in batch.items()}
