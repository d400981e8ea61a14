"""Sources, transforms and batches: what is read is what was written; batch k depends on (seed, k) alone."""

import io
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import Loading, ordered_batches, train_batches, transforms
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.data.sources.lmdb import LmdbSource
from diffrep_jax.errors import UserError

ROOT = Path(__file__).parents[1]
PIXELS = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def write_lmdb(path, entries, subdir=True):
    with (
        lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as environment,
        environment.begin(write=True) as txn,
    ):
        for key, value in entries.items():
            txn.put(key.encode(), value)
    return path


def numbered(pattern, count, length=True, first=0):
    entries = {pattern % i: b"value %d" % i for i in range(first, first + count)}
    return {**entries, "length": str(count).encode()} if length else entries


def encode(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


# --- sources


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
            "keys 'cat.png', 'dog.png', not '<prefix>-<digits>'",
        ),
        ({"256-00000": b"", "length": b"many"}, "'many' under 'length'"),
        ({"256-00000": b"", "length": b"0"}, "'0' under 'length'"),
        ({"256-00000": b"", "length": b"3"}, "no key '256-00002'"),
        ({"128-00000": b"", "256-00000": b""}, "no key '128-00001'"),
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


def test_an_lmdb_that_the_caller_holds_open_is_named(tmp_path):
    path = write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 2))
    with lmdb.open(str(path)), pytest.raises(UserError, match="open elsewhere in this process"):
        LmdbSource(path)


def test_an_index_out_of_range_is_refused_and_ends_a_for_loop(tmp_path):
    for source in (
        LmdbSource(write_lmdb(tmp_path / "a.lmdb", numbered("256-%05d", 3))),
        ArraySource(np.eye(3)),
    ):
        assert len(list(source)) == 3
        for index in (3, -1):
            with pytest.raises(UserError, match=f"Index {index} .* 0 to 2"):
                source[index]


# --- transforms


def test_decode_gives_pillows_pixels():
    colour, grey = Image.fromarray(PIXELS), Image.fromarray(PIXELS[:, :, 0])
    for image in (colour, grey):
        for options in (
            {"format": "PNG"},
            {"format": "JPEG", "quality": 90},
            {"format": "WEBP", "lossless": True},
        ):
            data = encode(image, **options)
            opened = Image.open(io.BytesIO(data))
            np.testing.assert_array_equal(transforms.decode(data), np.asarray(opened.convert("RGB")))
            np.testing.assert_array_equal(transforms.decode(data, 1)[:, :, 0], np.asarray(opened.convert("L")))


def test_decode_of_simplejpeg_equals_pillows_and_leaves_it_the_hard_files(monkeypatch):
    pytest.importorskip("simplejpeg")
    image = Image.fromarray(PIXELS).resize((178, 218))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [encode(image, format="JPEG", quality=q, subsampling=s) for q in (75, 95) for s in (0, 1, 2)]
    files += [encode(image.convert(mode), format="JPEG") for mode in ("L", "CMYK")]
    files += [encode(image, format="JPEG", exif=exif)]
    fast = [transforms.decode(data, channels) for data in files for channels in (1, 3)]
    monkeypatch.setattr(transforms, "_simplejpeg", lambda: None)
    slow = [transforms.decode(data, channels) for data in files for channels in (1, 3)]
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(a, b)


def test_decode_turns_the_image_as_its_exif_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    for form in ("PNG", "JPEG"):
        upright = transforms.decode(encode(Image.fromarray(PIXELS), format=form))
        turned = transforms.decode(encode(Image.fromarray(PIXELS), format=form, exif=exif))
        np.testing.assert_array_equal(turned, np.rot90(upright, k=-1))


def test_decode_lays_transparency_on_white():
    rgba = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    rgba[:, 20:, 3] = 255
    decoded = transforms.decode(encode(Image.fromarray(rgba), format="PNG"))
    assert (decoded[:, :20] == 255).all()
    np.testing.assert_array_equal(decoded[:, 20:], PIXELS[:, 20:])

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    assert transforms.decode(encode(palette, format="PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    clear = encode(palette, format="PNG", transparency=0)
    assert transforms.decode(clear).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_decode_of_16_bit_grey_keeps_the_shades():
    shades = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for form in ("PNG", "TIFF"):
        decoded = transforms.decode(encode(Image.fromarray(shades), format=form))
        assert decoded.tolist() == [[[0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_decode_of_cmyk_and_of_one_bit():
    cmyk = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="JPEG", quality=100)  # red
    np.testing.assert_allclose(transforms.decode(cmyk)[4, 4], [255, 0, 0], atol=3)
    bits = encode(Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1"), format="PNG")
    assert transforms.decode(bits, 1).tolist() == [[[0], [255]]]


def test_decode_names_what_does_not_decode():
    jpeg = encode(Image.fromarray(PIXELS), format="JPEG")
    floats = encode(Image.fromarray(np.ones((2, 2), np.float32)), format="TIFF")
    for data in (
        b"",
        b"not an image",
        jpeg[: len(jpeg) // 2],
        encode(Image.fromarray(PIXELS), format="PNG")[:60],
        floats,
    ):
        with pytest.raises(UserError, match="Entry 7 of x does not decode"):
            transforms.decode(data, place="Entry 7 of x")


@pytest.mark.parametrize(
    ("shape", "size", "scaled", "box"),  # scaled: (w, h); box: left, top, right, bottom
    [
        ((30, 60), 15, (30, 15), (8, 0, 23, 15)),
        ((50, 20), 10, (10, 25), (0, 8, 10, 18)),
        ((30, 41), 16, (21, 16), (2, 0, 18, 16)),
        ((8, 8), 20, (20, 20), (0, 0, 20, 20)),
        ((20, 31), 20, (31, 20), (6, 0, 26, 20)),
        ((16, 16), 16, (16, 16), (0, 0, 16, 16)),
    ],
)
def test_resize_is_pillows_bilinear_and_a_centre_crop(shape, size, scaled, box):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    expected = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_array_equal(transforms.resize(pixels, size), np.asarray(expected))
    grey = Image.fromarray(pixels[:, :, 1]).resize(scaled, Image.Resampling.BILINEAR).crop(box)
    np.testing.assert_array_equal(transforms.resize(pixels[:, :, 1:2], size)[:, :, 0], np.asarray(grey))


def test_crop_takes_the_box_or_says_that_it_does_not_fit():
    expected = Image.fromarray(PIXELS).crop((5, 2, 25, 12))
    np.testing.assert_array_equal(transforms.crop(PIXELS, top=2, left=5, height=10, width=20), np.asarray(expected))
    with pytest.raises(UserError, match="40x30 pixels, too few for the crop of 20x10 at 5,21"):
        transforms.crop(PIXELS, top=21, left=5, height=10, width=20)


def test_float_and_back():
    levels = np.arange(256, dtype=np.uint8)
    floats = transforms.to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[255] == 1
    np.testing.assert_allclose(np.diff(floats), 2 / 255, rtol=1e-4)
    np.testing.assert_array_equal(transforms.to_uint8(floats), levels)
    assert transforms.to_uint8(np.array([-1.5, 0.0039, 3.0])).tolist() == [0, 128, 255]


# --- batches


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
from tests.test_data import OPTIONS, Loading, Numbered, train_batches

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


def test_importing_the_package_is_light():
    heavy = {"grain", "jax", "lmdb", "PIL", "sklearn", "tensorflow_datasets"}
    script = f"import sys, diffrep_jax.data; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr + done.stdout
