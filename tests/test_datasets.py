"""Data sets: each has the pixels, splits and labels of its source, and says what is wrong with a folder."""

import io
import logging
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from diffrep_jax.data import dataset_names, open_dataset
from diffrep_jax.data.datasets._published_images import split_range
from diffrep_jax.errors import UserError
from tests.made_data import (
    PATTERNS,
    emoji_package,
    encoded,
    scene,
    small_images,
    small_lmdb,
    write_fashion,
    write_folder,
    write_lfw,
    write_lmdb,
    write_zip,
)

OF_IMAGES = [name for name in dataset_names() if name != "codes"]  # that of codes is in test_latent_prior.py
LMDB_NAMES = ("bedroom", "celeba", "celebahq", "ffhq", "horse")


def request(name, data_dir=None, split="train", image_size=16, channels=3):
    return open_dataset(name, split=split, image_size=image_size, channels=channels, data_dir=data_dir)


# --- every data set


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """{name: a folder with small data of that data set}; the LMDBs lie in one folder, under their usual names."""
    lmdbs, pictures, fashion, lfw = (tmp_path_factory.mktemp(name) for name in ("all data", "pictures", "fa", "lfw"))
    for name in LMDB_NAMES:
        small_lmdb(lmdbs / f"{name}.lmdb", name)
    write_folder(pictures, {f"{i}.png": value for i, value in enumerate(small_images("any"))})
    write_fashion(fashion)
    write_lfw(lfw)
    emoji = write_folder(tmp_path_factory.mktemp("emoji"), emoji_package())
    own = {"digits": None, "emoji": emoji, "fashion": fashion, "folder": pictures, "lfw": lfw}
    return {name: own.get(name, lmdbs) for name in OF_IMAGES}


def test_the_data_sets_are_found_by_their_files():
    assert set(dataset_names()) >= {"digits", *LMDB_NAMES}
    assert not [name for name in dataset_names() if name.startswith("_")]


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_data_set_keeps_the_protocol(name, folders):
    splits = type(request(name, folders[name])).splits
    assert {"train", "test"} <= set(splits)
    for split in splits:
        for size, channels in ((16, 1), (33, 3), (64, 3)):
            dataset = request(name, folders[name], split, size, channels)
            assert len(dataset) > 0
            first, last = dataset[0]["image"], dataset[len(dataset) - 1]["image"]
            assert first.dtype == np.uint8 and first.shape == last.shape == (size, size, channels)
            assert first.max() > first.min()
            for index in (-1, len(dataset)):
                with pytest.raises(UserError, match=f"Index {index} .*split '{split}' of {name}"):
                    dataset[index]
    assert sum(1 for _ in dataset) == len(dataset)
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[0]["image"], first)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_data_set_refuses_what_it_cannot_give(name, folders):
    for change, message in (
        ({"split": "tset"}, f"Unknown split 'tset' in data set '{name}'. Did you mean 'test'?"),
        ({"image_size": 0}, "data.image_size is 0"),
        ({"image_size": 64.0}, "data.image_size is 64.0"),
        ({"image_size": 100_000}, "data.image_size is 100000"),
        ({"channels": 2}, "data.channels is 2"),
    ):
        with pytest.raises(UserError) as caught:
            request(name, folders[name], **change)
        assert message in str(caught.value)


def test_an_unknown_data_set_is_refused_with_the_nearest_name():
    for name in ("celebs", "_source_images", "../digits", "Digits"):
        with pytest.raises(UserError, match=f"Unknown data set '{name}'.*Known: .*celeba"):
            request(name)


# --- pixels


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("subdir", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_celeba_is_cropped_and_resized_as_published(tmp_path, form, subdir, length):
    path, values = small_lmdb(tmp_path / "celeba.lmdb", "celeba", 10, form, length=length, subdir=subdir)
    dataset = request("celeba", path, "train", 64)
    for i in range(len(dataset)):
        face = Image.open(io.BytesIO(values[i])).crop((25, 57, 25 + 128, 57 + 128))
        expected = np.asarray(face.resize((64, 64), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(dataset[i]["image"], expected)


def test_celeba_of_square_images_is_taken_as_cropped_and_other_sizes_are_refused(tmp_path):
    square, narrow = encoded(scene(0, 64, 64), "PNG"), encoded(scene(0, 100, 150), "PNG")
    dataset = request("celeba", write_lmdb(tmp_path / "celeba64.lmdb", "64-%05d", [square, narrow] * 6), "train", 64)
    np.testing.assert_array_equal(dataset[0]["image"], np.asarray(scene(0, 64, 64)))
    with pytest.raises(UserError, match="Entry '64-00001' of '.*celeba64.lmdb' has 100x150 pixels"):
        dataset[1]


@pytest.mark.parametrize("name", [n for n in LMDB_NAMES if n != "celeba"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_others_are_resized_whole(tmp_path, name, form):
    _, values = small_lmdb(tmp_path / f"{name}256.lmdb", name, 4, form)
    dataset = request(name, tmp_path, "train", 32)
    opened = [Image.open(io.BytesIO(value)) for value in values[-len(dataset) :]]
    for example, image in zip(dataset, opened, strict=True):
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(example["image"], expected)


def test_any_prefix_opens(tmp_path):
    write_lmdb(tmp_path / "celebahq.lmdb", "128-%05d", [encoded(scene(i, 20, 20), "PNG") for i in range(3)])
    np.testing.assert_array_equal(request("celebahq", tmp_path, "all", 20)[2]["image"], np.asarray(scene(2, 20, 20)))


def test_one_channel_is_the_luma(tmp_path):
    path, values = small_lmdb(tmp_path / "a.lmdb", "horse", 2, "PNG")
    luma = Image.open(io.BytesIO(values[1])).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(request("horse", path, channels=1)[1]["image"][:, :, 0], np.asarray(luma))


def test_an_entry_that_does_not_decode_is_named(tmp_path):
    path = write_lmdb(tmp_path / "horse.lmdb", "256-%07d", [encoded(scene(0, 9, 9), "PNG"), b"junk"])
    with pytest.raises(UserError, match="Entry '256-0000001' of '.*horse.lmdb' does not decode"):
        request("horse", path)[1]


# --- splits


def marked(index):
    """A tiny image whose colour is the number `index`."""
    return encoded(Image.new("RGB", (4, 4), (index >> 16, index >> 8 & 255, index & 255)), "PNG")


def mark(example):
    red, green, blue = example["image"][0, 0].tolist()
    return red << 16 | green << 8 | blue


@pytest.mark.parametrize(
    ("name", "published", "ends"),  # ends: first and last image of each split
    [
        ("ffhq", 70_000, {"all": (0, 69_999), "train": (10_000, 69_999), "test": (0, 9_999)}),
        (
            "celeba",
            202_599,
            {"train": (0, 162_769), "validation": (162_770, 182_636), "test": (182_637, 202_598)},
        ),
        ("celebahq", 30_000, {"all": (0, 29_999), "train": (0, 29_999), "test": (0, 29_999)}),
    ],
)
def test_the_splits_of_a_complete_file_are_the_published_ones(tmp_path, caplog, name, published, ends):
    values = [b"never read"] * published
    for index in {end for pair in ends.values() for end in pair}:
        values[index] = marked(index)
    write_lmdb(tmp_path / f"{name}.lmdb", PATTERNS[name], values)
    for split, (first, last) in ends.items():
        dataset = request(name, tmp_path, split, image_size=4)
        assert len(dataset) == last - first + 1
        assert (mark(dataset[0]), mark(dataset[len(dataset) - 1])) == (first, last)
    assert not caplog.records
    if name == "celeba":
        assert [len(request(name, tmp_path, s)) for s in ends] == [162_770, 19_867, 19_962]


@pytest.mark.parametrize("count", [3, 4, 5, 11, 300])
def test_a_smaller_file_is_split_in_the_published_proportions(tmp_path, caplog, count):
    write_lmdb(tmp_path / "celeba.lmdb", "None-%07d", [marked(i) for i in range(count)])
    parts = {s: [mark(e) for e in request("celeba", tmp_path, s, 4)] for s in ("train", "validation", "test")}
    assert parts["train"] + parts["validation"] + parts["test"] == list(range(count))
    for split, images in {"train": 162_770, "validation": 19_867, "test": 19_962}.items():
        assert len(parts[split]) >= 1
        assert abs(len(parts[split]) - images / 202_599 * count) <= 2
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 3  # one line for each that was opened
    assert f"holds {count} images, not the published 202,599" in caplog.text


@pytest.mark.parametrize(("count", "tests"), [(140, 20), (2, 1)])
def test_a_smaller_ffhq_keeps_its_test_apart(tmp_path, count, tests):
    write_lmdb(tmp_path / "ffhq.lmdb", "256-%05d", [marked(i) for i in range(count)])
    parts = {s: [mark(e) for e in request("ffhq", tmp_path, s, 4)] for s in ("all", "train", "test")}
    images = list(range(count))
    assert parts == {"all": images, "test": images[:tests], "train": images[tests:]}


def test_a_file_with_fewer_images_than_splits_is_refused(tmp_path):
    write_lmdb(tmp_path / "celeba.lmdb", "None-%07d", [marked(0), marked(1)])
    with pytest.raises(UserError, match="There are 2 images, too few for the 3 splits"):
        request("celeba", tmp_path)


def test_a_larger_file_keeps_the_published_boundaries():
    ranges = {"all": (0, 100), "train": (30, 100), "test": (0, 30)}
    assert [split_range(ranges, split, 100, 170) for split in ranges] == [(0, 100), (30, 100), (0, 30)]


# --- digits


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_are_the_scans_of_scikit_learn(channels, tmp_path):
    scans = load_digits()
    parts = [request("digits", tmp_path / "ignored", s, 8, channels) for s in ("train", "test")]
    assert [len(part) for part in parts] == [1500, 297]
    images = np.stack([e["image"] for part in parts for e in part])
    assert np.abs(images / 255 - scans.images[..., None] / 16).max() <= 0.5 / 255 + 1e-9
    labels = [e["label"] for part in parts for e in part]
    assert labels == scans.target.tolist() and type(labels[0]) is int
    assert min(np.bincount(labels[1500:])) > 20  # every class is tested


def test_digits_are_enlarged_bilinearly():
    small, large = (request("digits", None, "test", size, 1)[5]["image"][:, :, 0] for size in (8, 16))
    expected = Image.fromarray(small).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(large, np.asarray(expected))


# --- where the data are looked for


@pytest.mark.parametrize("name", LMDB_NAMES)
def test_data_are_found_directly_by_usual_name_and_as_the_only_lmdb(tmp_path, monkeypatch, caplog, name):
    usual = tmp_path / "usual"
    usual.mkdir()
    direct, _ = small_lmdb(usual / f"{name}64.lmdb", name, 3, "PNG")
    (usual / "zzz.lmdb").mkdir()  # the usual name wins over others
    single = tmp_path / "single"
    single.mkdir()
    small_lmdb(single / "mine.lmdb", name, 3, "PNG", subdir=False)
    images = [request(name, where)[0]["image"] for where in (direct, str(usual), single / "mine.lmdb")]
    assert "only LMDB" not in caplog.text
    images.append(request(name, single)[0]["image"])
    assert "reading the only LMDB there, mine.lmdb" in caplog.text
    monkeypatch.setenv("DIFFREP_DATA", str(usual))
    images.append(request(name)[0]["image"])
    for image in images[1:]:
        np.testing.assert_array_equal(image, images[0])


def test_data_dir_goes_before_the_environment(tmp_path, monkeypatch):
    small_lmdb(tmp_path / "ffhq.lmdb", "ffhq", 4)
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "absent"))
    assert len(request("ffhq", tmp_path, "all")) == 4


@pytest.mark.parametrize("variable", [None, ""])
def test_no_data_directory(monkeypatch, variable):
    monkeypatch.delenv("DIFFREP_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("DIFFREP_DATA", variable)
    with pytest.raises(UserError, match="'ffhq' needs its images: .*ffhq.lmdb with --data_dir or DIFFREP_DATA"):
        request("ffhq")


def test_a_folder_without_the_data(tmp_path):
    for name in ("empty", "other", "two", "broken/celeba.lmdb"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "readme.txt").touch()
    for name in ("a.lmdb", "b.lmdb"):
        (tmp_path / "two" / name).mkdir()
    for name, message in {
        "absent": "does not exist: .*--data_dir or DIFFREP_DATA",
        "empty": "is empty: .*--data_dir or DIFFREP_DATA",
        "other": "no celeba.lmdb, no LMDB, zip, tar, npz, TFDS data set or image at all in '.*other'.*: .*--data_dir",
        "two": "no celeba.lmdb, only a.lmdb, b.lmdb in .*--data_dir",
        "broken": "no LMDB.* at all in '.*broken/celeba.lmdb'",
        "other/readme.txt": "does not open as an LMDB",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            request("celeba", tmp_path / name)
        assert "\n" not in str(caught.value)


def test_train_and_test_data_of_one_file_are_open_at_once(tmp_path):
    small_lmdb(tmp_path / "celeba.lmdb", "celeba")
    train, test = request("celeba", tmp_path, "train"), request("celeba", tmp_path, "test")
    assert not np.array_equal(train[0]["image"], test[0]["image"])


# --- any images


@pytest.mark.parametrize("form", ["folder", "zip", "folder of a zip", "lmdb", "folder of an lmdb"])
def test_any_images_open_from_whatever_holds_them(tmp_path, form):
    values = small_images("any", 12, "PNG")
    names = [f"b/img{i}.PNG" if i > 5 else f"a ä/img{i}.png" for i in range(12)]
    files = dict(zip(names, values, strict=True))
    clutter = {"readme.txt": b"", ".hidden.png": b"", ".cache/x.png": b"", "a ä/._img1.png": b"", "__MACOSX/z.png": b""}
    where = tmp_path / "größe 1"
    where.mkdir()
    if form == "folder":
        write_folder(where, files | clutter)
    elif "zip" in form:
        write_zip(where / "images.zip", files | clutter)
    else:
        write_lmdb(where / "my.lmdb", "256-%05d", values)
    path = {"zip": where / "images.zip", "lmdb": where / "my.lmdb"}.get(form, where)
    dataset = request("folder", path, "all", 70)
    for example, value in zip(dataset, values, strict=True):  # in natural order, img10 last
        np.testing.assert_array_equal(example["image"], np.asarray(Image.open(io.BytesIO(value))))
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[3]["image"], dataset[3]["image"])
