"""Batches from a data set: shuffled without end for training, in order and once for evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np

from diffrep_jax.data.datasets import ImageDataset
from diffrep_jax.data.transforms import flip as flip_image
from diffrep_jax.data.transforms import to_float
from diffrep_jax.errors import UserError

Batch = dict[str, np.ndarray]


def train_batches(
    dataset: ImageDataset,
    *,
    seed: int,
    batch_size: int,
    start_step: int,
    flip: bool,
    workers: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Batches `start_step`, `start_step` + 1, ... without end; batch k is a function of (seed, k) alone.

    "image" is float32 [b, h, w, c] in [-1, 1]; other entries are arrays [b].
    Each epoch is a fresh permutation; what is left over at its end begins the next batch.

    batch_size is the global one: each of `process_count` processes gets a contiguous part of it; the parts
    joined in order are the batch that a single process would see.
    flip: mirror each image left-right with probability 1/2.
    workers: threads that read ahead, each busy with a batch of its own (so that many batches are in memory);
    0 reads in the calling thread. It never changes the batches. The threads end with the iterator.
    """
    _check_sizes(dataset, seed, batch_size, start_step, workers, process_index, process_count)
    import grain

    # Each random step has its own seed, so that one added later would not change the order of the data.
    # Grain seeds epoch e with seed + e: derived seeds keep run s, epoch 1 from being run s + 1, epoch 0.
    shuffle_seed, flip_seed = (int(s) for s in np.random.SeedSequence(seed).generate_state(2))
    examples = grain.MapDataset.source(dataset).shuffle(seed=shuffle_seed).repeat()
    if flip:
        examples = examples.random_map(_random_flip, seed=flip_seed)  # after repeat: drawn anew each epoch
    # Nothing is dropped; without drop_remainder Grain rounds the endless length up, out of len()'s range.
    parts = examples.batch(batch_size // process_count, drop_remainder=True, batch_fn=_collate)
    # Part j of the stream is part j % n of global batch j // n.
    parts = parts[start_step * process_count + process_index :: process_count]
    return iter(parts.to_iter_dataset(grain.ReadOptions(num_threads=workers, prefetch_buffer_size=workers)))


def ordered_batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    num_images: int | None = None,
    indices: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """The data set once and in order, without flips, batched as in `train_batches`; the last batch is short.

    indices: these images in this order instead. num_images: stop after so many, or at the end of these.
    """
    for value, what in ((batch_size, "batch_size"), (1 if num_images is None else num_images, "num_images")):
        if value < 1:
            raise UserError(f"{what} is {value}: use 1 or more.")
    order = (range(len(dataset)) if indices is None else indices)[:num_images]
    starts = range(0, len(order), batch_size)
    return (_collate([dataset[int(i)] for i in order[start : start + batch_size]]) for start in starts)


def _random_flip(example: dict, rng: np.random.Generator) -> dict:
    if rng.random() < 0.5:
        return {**example, "image": flip_image(example["image"])}
    return example


def _collate(examples: Sequence[dict]) -> Batch:
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    return {**batch, "image": to_float(batch["image"])}


def _check_sizes(dataset, seed, batch_size, start_step, workers, process_index, process_count) -> None:
    lowest = {
        "seed": (seed, 0),
        "batch_size": (batch_size, 1),
        "start_step": (start_step, 0),
        "workers": (workers, 0),
    }
    for name, (value, least) in lowest.items():
        if value < least:
            raise UserError(f"{name} is {value}: use {least} or more.")
    if len(dataset) < 1:
        raise UserError("The data set has no images to train on: use another split.")
    if not 0 <= process_index < process_count:
        raise UserError(
            f"process_index is {process_index}: use 0 to {process_count - 1}, as there are {process_count}."
        )
    if batch_size % process_count:
        raise UserError(f"batch_size {batch_size} does not divide among {process_count} processes: use a multiple.")
