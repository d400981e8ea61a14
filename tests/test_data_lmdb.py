"""LMDBs: the entries that the library wrote, by number or by any keys; what is damaged is named and kills nothing."""

import itertools
import os
import pickle
import subprocess
import sys
import threading

import lmdb
import numpy as np
import pytest

from diffrep_jax.data import open_dataset
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.sources import open_source
from diffrep_jax.data.sources._lmdb_file import LmdbFile
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.data.sources.lmdb import LmdbSource
from diffrep_jax.errors import UserError
from tests.made_data import encoded, scene
from tests.tiny import ROOT

PNG = encoded(scene(0, 8, 6), "PNG")


def write_lmdb(path, entries, subdir=True):
    with (
        lmdb.open(str(path), map_size=1 << 27, subdir=subdir) as environment,
        environment.begin(write=True) as txn,
    ):
        for key, value in entries.items():
            txn.put(key.encode(), value)
    return path


def numbered(pattern, count, length=True, first=0):
    entries = {pattern % i: b"value %d" % i for i in range(first, first + count)}
    return {**entries, "length": str(count).encode()} if length else entries


@pytest.mark.parametrize("pattern", ["256-%05d", "None-%07d", "a b-c-%03d", "zz-%04d", "256-%d"])
@pytest.mark.parametrize("subdir", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_every_layout_gives_its_entries_in_the_order_of_their_numbers(tmp_path, pattern, subdir, length):
    path = write_lmdb(tmp_path / "Größe ü.lmdb", numbered(pattern, 12, length), subdir)
    source = LmdbSource(path)
    assert [source[i] for i in range(len(source))] == [b"value %d" % i for i in range(12)]
    assert source.key(11) == pattern % 11


def test_numbers_may_start_above_zero_and_outgrow_their_digits(tmp_path):
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", numbered("x-%05d", 5, first=7)))
    assert (len(source), source[0], source[4], source.key(4)) == (5, b"value 7", b"value 11", "x-00011")
    source = LmdbSource(write_lmdb(tmp_path / "b.lmdb", numbered("x-%02d", 102)))
    assert (len(source), source[0], source[101], source.key(101)) == (102, b"value 0", b"value 101", "x-101")


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 3))
    (path / "lock.mdb").unlink()
    path.chmod(0o555)
    assert LmdbSource(path)[2] == b"value 2"
    assert os.listdir(path) == ["data.mdb"]


def test_opening_does_not_scan_and_a_gap_is_named_when_met(tmp_path):
    entries = numbered("256-%05d", 5)
    del entries["256-00002"]
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", entries))
    assert source[3] == b"value 3"
    with pytest.raises(UserError, match="256-00002.*incomplete"):
        source[2]


def test_one_path_opens_twice_also_by_a_link_and_from_many_threads(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 50))
    (tmp_path / "link.lmdb").symlink_to(path)
    train, test = LmdbSource(path), LmdbSource(tmp_path / "link.lmdb")
    read = []
    threads = [
        threading.Thread(target=lambda s=s: read.extend(s[i] for i in range(50))) for s in (train, test) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read) == sorted([b"value %d" % i for i in range(50)] * 4)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 3), subdir=False)
    assert len(LmdbSource(path)) == 3
    os.replace(write_lmdb(tmp_path / "b.lmdb", numbered("256-%05d", 4), subdir=False), path)
    assert LmdbSource(path)[3] == b"value 3"


def test_a_source_is_pickled_without_its_file_and_survives_a_fork(tmp_path):
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 3)))
    assert source[0] == b"value 0"
    script = """
import os, pickle, sys
source = pickle.load(sys.stdin.buffer)
assert source[1] == b"value 1"
if child := os.fork():
    status = os.waitpid(child, 0)[1]
    assert source[2] == b"value 2"
    sys.exit(os.waitstatus_to_exitcode(status))
os._exit(0 if source[2] == b"value 2" and type(source)(source.path)[0] == b"value 0" else 7)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(source), cwd=ROOT, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "is empty"),
        ({"length": b"0"}, "is empty"),
        (
            {"cat.png": b"", "dog.png": b"", "length": b"2"},
            "keys such as 'cat.png', .* no value .* encoded image",
        ),
        ({"256-00000": b"x", "length": b"many"}, "no value that was looked at is an encoded image"),
        ({"256-00000": b"", "length": b"0"}, "'0' under 'length'"),
        ({"256-00000": b"", "length": b"3"}, "no key '256-00002'"),
        ({"128-00000": PNG, "256-00000": PNG}, "each image in more than one size, 128-#, 256-#"),
    ],
)
def test_an_lmdb_with_other_contents_is_refused(tmp_path, entries, message):
    path = write_lmdb(tmp_path / "a.lmdb", entries)
    with pytest.raises(UserError, match=message) as caught:
        LmdbSource(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_lmdb_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.lmdb").write_text("hello " * 5000)
    (tmp_path / "nothing.lmdb").touch()
    for name, message in {
        "folder": "has no data.mdb",
        "text.lmdb": "does not open as an LMDB",
        "nothing.lmdb": "does not open as an LMDB",
        "absent.lmdb": "does not exist",
    }.items():
        with pytest.raises(UserError, match=message):
            LmdbSource(tmp_path / name)


def test_a_file_cut_short_is_refused_before_it_kills_the_process(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 2000), subdir=False)
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(UserError, match="cut short"):
        LmdbSource(path)


def test_an_lmdb_that_the_caller_holds_open_is_read_too(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 2))
    with lmdb.open(str(path)):
        assert LmdbSource(path)[1] == b"value 1"


def test_an_index_out_of_range_is_refused_and_ends_a_for_loop(tmp_path):
    for source in (
        LmdbSource(write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 3))),
        ArraySource(np.eye(3)),
    ):
        assert len(list(source)) == 3
        for index in (3, -1):
            with pytest.raises(UserError, match=f"Index {index} .* 0 to 2"):
                source[index]


# --- keys of other programs


def images(count, form="WEBP"):
    return [encoded(scene(i, 12, 10), form) for i in range(count)]


def hashes(count):
    rng = np.random.default_rng(0)
    return [rng.bytes(20).hex() for _ in range(count)]


@pytest.mark.parametrize(
    ("keys", "others"),
    [
        (sorted(hashes(9)), {}),  # LSUN
        ([f"{i:08d}" for i in range(9)], {}),
        ([f"{i:04d}.png" for i in range(9)], {"meta_info.txt": b"0000.png (12,10,3) 1"}),
        ([f"image-{i:09d}" for i in range(1, 10)], {f"label-{i:09d}": b"word" for i in range(1, 10)}),
        (
            [f"{kind}/img{i}" for kind in ("cat", "dog") for i in (1, 2, 10)],
            {"__len__": b"6", "__keys__": b"[]"},
        ),
        (["bird", "cat", "dog"], {"zebra": b"no image"}),
        ([f"cat-{i}" for i in range(4)] + [f"dog-{i}" for i in range(3)], {}),
        ([f"256-{i:05d}" for i in (0, 1, 3, 4)], {}),  # a gap, and no length
        (["ü1", "ü2", "ü10"], {}),
    ],
)
def test_keys_of_any_program_in_natural_order_without_what_is_no_image(tmp_path, keys, others):
    values = dict(zip(keys, images(len(keys)), strict=True))
    number = {"num-samples": b"9"} if keys[0].startswith("image-") else {}
    source = LmdbSource(write_lmdb(tmp_path / "a.lmdb", {**others, **number, **values}))
    assert [source.key(i) for i in range(len(source))] == keys
    assert [source[i] for i in range(len(source))] == list(values.values())
    again = pickle.loads(pickle.dumps(source))
    assert again[len(keys) - 1] == values[keys[-1]]


def test_lsun_as_published_is_bedroom(tmp_path):
    values = dict(zip(sorted(hashes(6)), images(6), strict=True))
    (tmp_path / "lsun").mkdir()
    write_lmdb(tmp_path / "lsun" / "bedroom_train_lmdb", values)
    write_lmdb(tmp_path / "lsun" / "bedroom_val_lmdb", dict(itertools.islice(values.items(), 2)))
    for folder in (tmp_path, tmp_path / "lsun", tmp_path / "lsun" / "bedroom_train_lmdb"):
        dataset = open_dataset("bedroom", split="train", image_size=10, channels=3, data_dir=folder)
        assert len(dataset) == 6 and dataset[5]["image"].shape == (10, 10, 3)
    with pytest.raises(UserError, match="only lsun/bedroom_train_lmdb, lsun/bedroom_val_lmdb in .*: give the LMDB"):
        open_source(tmp_path)


# --- the file, read without the library


def test_every_key_and_value_is_the_librarys(tmp_path):
    """Trees of several levels, values in and out of their pages, deletions, keys of all lengths."""
    rng = np.random.default_rng(0)
    entries = {}
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=1 << 28) as environment:
        for _ in range(12):
            with environment.begin(write=True) as txn:
                for _ in range(400):
                    key, value = rng.bytes(rng.integers(1, 60)), rng.bytes(rng.choice([0, 3, 300, 2030, 5000, 20000]))
                    txn.put(key, value)
                    entries[key] = value
                for key in list(entries)[:: rng.integers(5, 40)]:
                    txn.delete(key)
                    del entries[key]
    file = LmdbFile(tmp_path / "a.lmdb" / "data.mdb")
    assert list(file.keys()) == sorted(entries) and file.entries == len(entries)
    assert all(file.get(key) == value for key, value in entries.items())
    assert [file.get(key) for key in (b"", b"absent", b"\xff" * 61)] == [None] * 3


def test_damage_is_an_error_of_one_line_and_no_signal(tmp_path):
    """The library dies of SIGBUS on some of these."""
    entries = dict(zip((f"256-{i:05d}" for i in range(40)), images(40, "BMP"), strict=True)) | {"length": b"40"}
    whole = write_lmdb(tmp_path / "whole.lmdb", entries, subdir=False).read_bytes()
    rng, refused, bad, path = np.random.default_rng(0), 0, 0, tmp_path / "damaged.lmdb"
    pages = [at for at in range(0, len(whole), 4096)]
    for number in range(300):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 12)):
            page = pages[number % 8] if number % 2 else rng.choice(pages)
            data[page + rng.integers(0, 200 if number % 3 else 4096)] = rng.integers(256)
        path.write_bytes(data if number % 5 else data[: rng.integers(0, len(data))])
        try:
            source = LmdbSource(path)
            for i in range(len(source) if len(source) < 100 else 100):
                try:
                    source[i]
                except BadEntry as error:
                    bad += 1
                    assert "\n" not in str(error)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 50 and bad > 50


def test_a_tree_that_leads_to_itself_ends(tmp_path):
    entries = {f"256-{i:05d}": b"x" * 900 for i in range(400)}
    path = write_lmdb(tmp_path / "a.lmdb", entries, subdir=False)
    data = bytearray(path.read_bytes())
    root = max(
        (data[at : at + 8], at) for at in range(2 * 4096, len(data), 4096) if data[at + 10] & 1 and data[at + 12] > 16
    )[1]
    first = root + int.from_bytes(data[root + 16 : root + 18], "little")
    data[first : first + 4] = (root // 4096).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match="does not open as an LMDB .its tree has no end"):
        LmdbSource(path)
