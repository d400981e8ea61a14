"""Bad entries: left out, counted and named; batches stay a function of seed, number and data."""

import itertools
import logging
import pickle

import numpy as np
import pytest

from diffrep_jax.data import Loading, open_dataset, ordered_batches, train_batches
from diffrep_jax.data.bad_entries import BadEntries, BadEntry
from diffrep_jax.errors import UserError
from tests.made_data import encoded, scene, write_folder, write_lmdb, write_zip


class Numbered:
    """Image i has value i; some are bad."""

    def __init__(self, count, bad):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index in self.bad:
            raise BadEntry(f"Entry {index} is bad.")
        return {"image": np.full((4, 4, 1), index, np.uint8), "label": index}


OPTIONS = {"seed": 3, "batch_size": 10, "workers": 0}


def labels(count, dataset, start_step=0, **options):
    batches = train_batches(dataset, Loading(start_step=start_step, **OPTIONS | options), flip=False)
    return [batch["label"].tolist() for batch in itertools.islice(batches, count)]


@pytest.mark.parametrize(("workers", "kind"), [(0, "thread"), (2, "thread"), (1, "process")])
def test_the_next_good_image_stands_in_for_a_bad_one(workers, kind):
    whole, holes = Numbered(50, ()), Numbered(50, (7, 8, 49))
    options = {"max_bad_fraction": 0.06, "workers": workers, "worker_kind": kind}
    expected = [[{7: 9, 8: 9, 49: 0}.get(i, i) for i in batch] for batch in labels(10, whole)]
    assert labels(10, holes, **options) == expected
    assert labels(7, holes, start_step=3, **options) == expected[3:]  # also where it starts late


def test_in_order_bad_images_are_left_out():
    batches = list(ordered_batches(Numbered(25, (0, 13, 24)), batch_size=10, max_bad_fraction=0.12))
    assert [len(batch["image"]) for batch in batches] == [10, 10, 2]
    assert np.concatenate([batch["label"] for batch in batches]).tolist() == [*range(1, 13), *range(14, 24)]
    with pytest.raises(UserError, match="Entry 0 is bad.*1 bad of 25 entries"):
        list(ordered_batches(Numbered(25, (0,)), batch_size=10))


def test_where_no_image_is_left_it_says_so():
    with pytest.raises(UserError, match=r"^Entry 3 is bad\. That leaves none of the 2 images asked for: .* for more"):
        list(ordered_batches(Numbered(50, (3, 4)), batch_size=8, indices=[3, 4], max_bad_fraction=0.1))
    assert list(ordered_batches(Numbered(50, ()), batch_size=8, indices=[])) == []


def test_each_is_logged_once_and_one_too_many_is_an_error(caplog):
    labels(30, Numbered(50, (7, 20)), max_bad_fraction=0.04)  # six epochs
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "Bad entry 2: Entry" in caplog.text
    with pytest.raises(UserError) as caught:
        labels(30, Numbered(50, (7, 20, 30)), max_bad_fraction=0.04)
    message = str(caught.value)
    assert "3 bad of 50 entries" in message and "data.max_bad_fraction=0.04" in message
    assert "--task=inspect_data" in message and "\n" not in message


def test_all_bad_ends():
    with pytest.raises(UserError, match="50 bad of 50"):
        labels(1, Numbered(50, range(50)), max_bad_fraction=0.99)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_limit_out_of_range_is_refused(fraction):
    with pytest.raises(UserError, match=f"data.max_bad_fraction is {fraction}"):
        BadEntries(10, fraction)


def test_the_count_goes_to_another_process():
    bad = BadEntries(10, 0.5)
    bad.note(3, BadEntry("x"))
    assert len(pickle.loads(pickle.dumps(bad))) == 1


@pytest.mark.parametrize("form", ["lmdb", "folder", "zip"])
def test_undecodable_and_missing_entries_are_named_by_their_key(tmp_path, caplog, form):
    good = [encoded(scene(i, 20, 20), "JPEG") for i in range(8)]
    half = good[3][: len(good[3]) // 2]
    values = [*good[:3], half, *good[4:]]
    names = [f"img{i}.jpg" for i in range(8)]
    if form == "lmdb":
        path = write_lmdb(tmp_path / "a.lmdb", "256-%05d", values)
        bad_key = "256-00003"
    elif form == "folder":
        path = write_folder(tmp_path / "a", dict(zip(names, values, strict=True)))
        bad_key = "img3.jpg"
    else:
        path = write_zip(tmp_path / "a.zip", dict(zip(names, good, strict=True)))
        data = path.read_bytes()
        where = data.index(good[3])
        path.write_bytes(data[: where + 400] + bytes(40) + data[where + 440 :])  # its checksum fails
        bad_key = "img3.jpg"
    dataset = open_dataset("folder", split="all", image_size=16, channels=3, data_dir=path)
    if form == "folder":
        (path / "img5.jpg").unlink()
    batches = list(ordered_batches(dataset, batch_size=8, max_bad_fraction=0.25))
    assert len(batches[0]["image"]) == (6 if form == "folder" else 7)
    assert bad_key in caplog.text and str(path) in caplog.text
    assert ("img5.jpg" in caplog.text) == (form == "folder")
