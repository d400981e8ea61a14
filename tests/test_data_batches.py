"""Batches: batch k depends on (seed, k) alone, whatever the workers and processes; in order and once to evaluate."""

import itertools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from diffrep_jax.data import Loading, ordered_batches, train_batches, transforms
from diffrep_jax.errors import UserError
from tests.tiny import ROOT


class Numbered:
    """Image i has value i, but for a column of 255 at the left; its label is i."""

    def __init__(self, count):
        self.count, self.read = count, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read += 1
        image = np.full((4, 4, 1), index, np.uint8)
        image[:, 0] = 255
        return {"image": image, "label": int(index)}


OPTIONS = {"seed": 3, "batch_size": 8, "start_step": 0, "workers": 0}


def take(count, dataset=None, flip=True, **options):
    batches = train_batches(dataset or Numbered(21), Loading(**OPTIONS | options), flip=flip)
    return list(itertools.islice(batches, count))


def labels(batches):
    return np.concatenate([batch["label"] for batch in batches]).tolist()


def assert_same(batches, others):
    assert len(batches) == len(others)
    for a, b in zip(batches, others, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("count", [1, 2, 21, 50])
def test_each_epoch_has_each_image_once_and_its_own_order(count):
    order = labels(take(count, Numbered(count)))  # `count` batches of 8 are 8 epochs
    epochs = [order[i * count : (i + 1) * count] for i in range(8)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 20:
        assert len(set(map(tuple, epochs))) == 8


def test_seeds_give_other_orders_also_against_the_next_epoch():
    orders = [labels(take(21, seed=seed)) for seed in (3, 4)]
    first, second = ([order[i * 21 : (i + 1) * 21] for i in range(8)] for order in orders)
    assert not set(map(tuple, first)) & set(map(tuple, second))


def test_batches_are_the_images_with_their_labels():
    batch = take(1)[0]
    assert batch["image"].shape == (8, 4, 4, 1) and batch["image"].dtype == np.uint8
    assert batch["label"].shape == (8,)
    np.testing.assert_array_equal(
        batch["image"][:, :, 1:3, 0], np.broadcast_to(batch["label"][:, None, None], (8, 4, 2))
    )


def test_flips_are_half_of_all_and_drawn_anew_each_epoch():
    batches = take(50, Numbered(40))
    image = np.concatenate([batch["image"] for batch in batches])
    left, right = (image[:, :, 0] == 255).all(axis=(1, 2)), (image[:, :, 3] == 255).all(axis=(1, 2))
    assert (left != right).all()
    assert 140 < right.sum() < 260  # of 400: six standard deviations
    flipped = {i: right[np.array(labels(batches)) == i].sum() for i in range(40)}
    assert sum(0 < times < 10 for times in flipped.values()) > 30  # not the same images each time
    unflipped = np.concatenate([batch["image"] for batch in take(50, Numbered(40), flip=False)])
    assert (unflipped[:, :, 0] == 255).all()
    assert labels(take(50, Numbered(40), flip=False)) == labels(batches)


@pytest.mark.parametrize("start", [1, 2, 3, 7, 11])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(start):
    assert_same(take(12)[start:], take(12 - start, start_step=start))


def test_a_late_start_is_as_quick_as_an_early_one():
    dataset = Numbered(21)
    late = take(1, dataset, start_step=10**9)
    assert dataset.read == 8
    assert_same(late, take(2, start_step=10**9 - 1)[1:])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_batches(workers):
    assert_same(take(10, start_step=2, workers=workers), take(10, start_step=2))


def test_worker_processes_do_not_change_the_batches():
    options = {"worker_kind": "process", "start_step": 2, "process_index": 1, "process_count": 2}
    assert_same(take(6, workers=2, **options), take(6, workers=0, **options))
    with pytest.raises(UserError, match="Unknown kind of workers 'fibre' in data.worker_kind"):
        take(1, workers=1, worker_kind="fibre")


def test_worker_processes_end_with_the_iterator_and_with_the_program():
    script = """
import multiprocessing, sys, time
from tests.test_data_batches import OPTIONS, Loading, Numbered, train_batches

if __name__ == "__main__":
    for end in ("del", "exit"):
        loading = Loading(**OPTIONS | {"workers": 1, "worker_kind": "process"})
        batches = train_batches(Numbered(21), loading, flip=True)
        held = next(batches)
        assert len(multiprocessing.active_children()) == 1
        if end == "del":
            del batches
            deadline = time.time() + 10
            while multiprocessing.active_children() and time.time() < deadline:
                time.sleep(0.01)
            assert not multiprocessing.active_children()
    print("end of the program")
    if "kill" in sys.argv:
        print(multiprocessing.active_children()[0].pid, flush=True)
        time.sleep(100)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of the program\n", "")

    program = subprocess.Popen([sys.executable, "-c", script, "kill"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "end of the program\n"
    worker = int(program.stdout.readline())
    program.kill()
    program.wait()
    program.stdout.close()
    deadline = time.time() + 10
    with pytest.raises(ProcessLookupError):
        while time.time() < deadline:
            os.kill(worker, 0)  # only asks whether it is there
            time.sleep(0.01)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_the_parts_of_the_processes_are_the_global_batch(count):
    parts = [take(6, start_step=5, process_index=i, process_count=count) for i in range(count)]
    assert all(len(batch["label"]) == 8 // count for part in parts for batch in part)
    joined = [{k: np.concatenate([p[k] for p in step]) for k in step[0]} for step in zip(*parts, strict=True)]
    assert_same(joined, take(6, start_step=5))


def test_a_batch_may_be_larger_than_the_data():
    counts = np.bincount(take(1, Numbered(10), batch_size=25)[0]["label"], minlength=10)
    assert set(counts.tolist()) == {2, 3}


def test_threads_end_when_the_caller_stops_early():
    def alive():
        return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]

    before = set(alive())
    batches = train_batches(Numbered(21), Loading(**OPTIONS | {"workers": 2}), flip=True)
    next(batches)
    assert set(alive()) - before
    del batches
    deadline = time.time() + 5
    while set(alive()) - before and time.time() < deadline:
        time.sleep(0.01)
    assert not set(alive()) - before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_entry_that_does_not_decode_stops_training_with_its_name(workers):
    class Broken(Numbered):
        def __getitem__(self, index):
            transforms.decode(b"junk", place=f"Entry {index}")

    with pytest.raises(UserError, match="Entry .* does not decode"):
        take(1, Broken(5), workers=workers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"start_step": -1}, "start_step is -1"),
        ({"workers": -2}, "workers is -2"),
        ({"process_count": 3}, "batch_size 8 does not divide among 3"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2: use 0 to 1"),
        ({"dataset": Numbered(0)}, "no images to train on"),
    ],
)
def test_train_batches_refuses_at_the_call(options, message):
    dataset = options.pop("dataset", Numbered(21))
    with pytest.raises(UserError, match=message):
        train_batches(dataset, Loading(**OPTIONS | options), flip=True)  # not first at next()


def test_ordered_batches_are_in_order_end_short_and_never_wrap():
    batches = list(ordered_batches(Numbered(21), batch_size=8))
    assert [len(batch["label"]) for batch in batches] == [8, 8, 5]
    assert labels(batches) == list(range(21))
    image = np.concatenate([batch["image"] for batch in batches])
    assert image.dtype == np.uint8 and (image[:, :, 0] == 255).all()
    np.testing.assert_array_equal(image[:, 0, 1, 0], np.arange(21))


def test_ordered_batches_of_a_part():
    dataset = Numbered(21)
    assert labels(ordered_batches(dataset, batch_size=8, num_images=11)) == list(range(11))
    assert dataset.read == 11
    assert labels(ordered_batches(dataset, batch_size=8, num_images=99)) == list(range(21))
    for indices in ([5, 20, 3, 5], np.array([5, 20, 3, 5])):
        assert labels(ordered_batches(dataset, batch_size=3, indices=indices)) == [5, 20, 3, 5]
        assert labels(ordered_batches(dataset, batch_size=3, indices=indices, num_images=2)) == [5, 20]
    assert list(ordered_batches(dataset, batch_size=3, indices=[])) == []
    for options in ({"batch_size": 0}, {"batch_size": 2, "num_images": 0}):
        with pytest.raises(UserError, match="is 0: use 1 or more"):
            ordered_batches(dataset, **options)
