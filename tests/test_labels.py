"""Classes and attributes: those of the files, by name or by position; what does not fit is refused with numbers."""

import csv

import numpy as np
import pytest
from sklearn.datasets import load_digits

from diffrep_jax.data import open_dataset
from diffrep_jax.data.datasets import digits, lfw
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.errors import UserError
from tests.made_data import (
    LFW_PEOPLE,
    small_images,
    small_lmdb,
    write_fashion,
    write_folder,
    write_idx,
    write_lfw,
    write_zip,
)

SIGNS = np.random.default_rng(0).choice([-1, 1], (12, 40))
NAMES = [f"Trait_{j}" for j in range(40)]


def request(name, data_dir, split="all", attributes=True):
    return open_dataset(name, split=split, image_size=16, channels=3, data_dir=data_dir, attributes=attributes)


def write_list(path, files, signs=SIGNS, names=NAMES, count=None):
    rows = [f"{file}  {'  '.join(map(str, row))}" for file, row in zip(files, signs, strict=False)]
    path.write_text("\n".join([str(count or len(rows)), " ".join(names), *rows]) + "\n")


def attributes(dataset):
    return np.stack([example["attributes"] for example in dataset])


# --- CelebA and CelebA-HQ


FILES = [f"{i:06d}.jpg" for i in range(1, 13)]


def celeba(folder, form):
    """CelebA as `form`, and its attribute list where users have it."""
    images = dict(zip(FILES, small_images("celeba"), strict=True))
    folder.mkdir()
    if form == "lmdb":
        small_lmdb(folder / "celeba.lmdb", "celeba")
    elif form == "folder":
        write_folder(folder / "img_align_celeba", images)
    elif form == "png":
        write_folder(folder / "img_align_celeba", {name.replace("jpg", "png"): v for name, v in images.items()})
    else:
        write_zip(folder / "img_align_celeba.zip", {f"img_align_celeba/{name}": v for name, v in images.items()})
    return folder


@pytest.mark.parametrize("form", ["lmdb", "folder", "png", "zip"])
def test_celeba_has_the_40_of_its_list(tmp_path, form):
    folder = celeba(tmp_path / "data", form)
    order = range(12) if form == "lmdb" else np.random.default_rng(1).permutation(12)  # files are found by name
    write_list(folder / "list_attr_celeba.txt", [FILES[i] for i in order], SIGNS[list(order)])
    parts = [request("celeba", folder, split) for split in ("train", "validation", "test")]
    found = np.concatenate([attributes(part) for part in parts])
    np.testing.assert_array_equal(found, (SIGNS > 0).astype(np.float32))
    assert found.dtype == np.float32 and parts[0].attribute_names == tuple(NAMES) and all(parts[0].binary_attributes)
    assert parts[0].class_names == () and "label" not in parts[0][0]


@pytest.mark.parametrize("where", ["lmdb itself", "beside", "Anno"])
def test_the_list_is_found_beside_the_data(tmp_path, where):
    folder = celeba(tmp_path / "data", "lmdb")
    (folder / "Anno").mkdir()
    file = folder / ("Anno" if where == "Anno" else "") / "list_attr_celeba.txt"
    write_list(file, FILES)
    data_dir = folder / "celeba.lmdb" if where == "lmdb itself" else folder
    assert len(request("celeba", data_dir, "train").attribute_names) == 40


def test_celebahq_has_the_40_of_its_list(tmp_path):
    write_folder(tmp_path / "CelebA-HQ-img", {f"{i}.jpg": v for i, v in enumerate(small_images("celebahq"))})
    write_folder(tmp_path / "CelebAMask-HQ-mask-anno", {"0/00000_hair.png": b"a mask, no picture"})
    write_list(tmp_path / "CelebAMask-HQ-attribute-anno.txt", [f"{i}.jpg" for i in range(12)])
    dataset = request("celebahq", tmp_path)
    assert len(dataset) == 12 and dataset.source.key(11) == "11.jpg"
    np.testing.assert_array_equal(attributes(dataset), SIGNS > 0)


def test_training_needs_no_attributes_and_a_probe_is_told(tmp_path):
    folder = celeba(tmp_path / "data", "folder")
    assert request("celeba", folder, "train", attributes=False)[0].keys() == {"image"}
    with pytest.raises(UserError, match="'celeba' has no attributes in .*: put list_attr_celeba.txt into") as caught:
        request("celeba", folder, "train")
    assert "\n" not in str(caught.value)
    write_list(folder / "list_attr_celeba.txt", FILES, count=99)  # not looked at unless asked for
    assert request("celeba", folder, "train", attributes=False).attribute_names == ()
    write_folder(tmp_path / "ffhq", {"a.jpg": small_images("ffhq", 1)[0], "b.jpg": small_images("ffhq", 1)[0]})
    with pytest.raises(UserError, match="'ffhq' has no attributes .*use another data set"):
        request("ffhq", tmp_path / "ffhq")


@pytest.mark.parametrize(
    ("form", "change", "message"),
    [
        ("lmdb", {"files": FILES[:10]}, "has 10 rows, .* 12 images"),
        ("lmdb", {"files": FILES, "count": 202_599}, "says that it has 202,599 rows, but has 12"),
        ("lmdb", {"files": FILES, "names": NAMES[:39]}, "names 39 attributes, not the published 40"),
        ("lmdb", {"files": FILES, "signs": SIGNS[:, :39]}, "has 39 values for 000001.jpg, not 40"),
        ("lmdb", {"files": FILES, "signs": SIGNS * 2}, "has the value .*2, where -1 and 1 are known"),
        ("lmdb", {"files": FILES, "signs": SIGNS.astype(str)[:, ::-1].tolist()[:11] + [["yes"] * 40]}, "'yes'|yes"),
        ("folder", {"files": FILES[:10]}, "has 10 rows, .* 12 images, of which 2 have no row, such as '000011.jpg'"),
        ("zip", {"files": [f"x{f}" for f in FILES]}, "has 12 rows, .* 12 images, of which 12 have no row"),
    ],
)
def test_a_list_that_does_not_fit_is_refused_with_both_numbers(tmp_path, form, change, message):
    folder = celeba(tmp_path / "data", form)
    write_list(folder / "list_attr_celeba.txt", **change)
    with pytest.raises(UserError, match=message) as caught:
        request("celeba", folder, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "many\na b\n", "3\n"])
def test_what_is_no_list_is_refused(tmp_path, text):
    folder = celeba(tmp_path / "data", "lmdb")
    (folder / "list_attr_celeba.txt").write_text(text)
    with pytest.raises(UserError, match="does not read as a list of attributes"):
        request("celeba", folder, "train")


# --- LFW


def test_lfw_has_its_people_and_73_attributes(tmp_path):
    write_lfw(tmp_path)
    for split, people in LFW_PEOPLE.items():
        plain = request("lfw", tmp_path, split, attributes=False)
        keys = [plain.source.key(entry) for entry in plain.entries]
        assert keys == [f"{name}/{name}_{i:04d}.jpg" for name, n in people.items() for i in range(1, n + 1)]
        labelled = request("lfw", tmp_path, split)
        expected = [i + np.arange(73) / 100 for name, n in people.items() if name != "Bo" for i in range(1, n + 1)]
        np.testing.assert_allclose(attributes(labelled), expected, rtol=1e-6)
        assert labelled.attribute_names == tuple(f"Name {j}" for j in range(73)) and not any(labelled.binary_attributes)
    assert len(request("lfw", tmp_path, "all", attributes=False)) == 6


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("peopleDevTrain.txt", "2\n", "3\n", "says that it has 3 people, but has 2"),
        ("peopleDevTrain.txt", "King\t3", "King\t4", "says 4 images of Ada_King, .* has 3"),
        ("peopleDevTrain.txt", "King\t3", "King three", "does not read as a list of people"),
        ("peopleDevTrain.txt", "King\t3", "King\t1\t3", "does not read as a list of people"),
        ("lfw_attributes.txt", "\tName 72", "", "names 72 attributes in line 2, not the published 73"),
        ("lfw_attributes.txt", "\t1.72\n", "\n", "has 72 values for Ada King 1, not 73"),
        ("lfw_attributes.txt", "King\t1\t", "King\tone\t", "row of 'Ada King' does not read"),
        ("lfw_attributes.txt", "Ada ", "Eva ", None),
    ],
)
def test_lists_of_lfw_that_do_not_fit_are_refused_with_both_numbers(tmp_path, file, old, new, message):
    write_lfw(tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    if message is None:  # a row too few, as in the published file
        assert len(request("lfw", tmp_path, "train")) == 2
        return
    with pytest.raises(UserError, match=message):
        request("lfw", tmp_path, "train")


def test_an_image_of_lfw_that_is_there_twice_is_refused(tmp_path):
    write_lfw(tmp_path)
    image = (tmp_path / "lfw_funneled" / "Bo" / "Bo_0001.jpg").read_bytes()
    write_folder(tmp_path / "lfw_funneled", {"old/Ada_King_0002.jpg": image})
    with pytest.raises(UserError, match="has both 'Ada_King/Ada_King_0002.jpg' and 'old/Ada_King_0002.jpg'"):
        request("lfw", tmp_path, "all")


def test_lfw_without_its_lists(tmp_path):
    write_lfw(tmp_path)
    (tmp_path / "lfw_attributes.txt").write_text("#\n" + "\t".join(["#", "person", "imagenum", *NAMES, *NAMES[:33]]))
    with pytest.raises(UserError, match="has 0 rows, .* 6 images, and no name is in both"):
        request("lfw", tmp_path)
    (tmp_path / "lfw_attributes.txt").unlink()
    with pytest.raises(UserError, match="no attributes in .*: put lfw_attributes.txt"):
        request("lfw", tmp_path)
    (tmp_path / "peopleDevTrain.txt").unlink()
    with pytest.raises(UserError, match="There is no peopleDevTrain.txt in"):
        request("lfw", tmp_path, "train", attributes=False)


def test_names_of_people_are_found_in_keys():
    assert lfw._person("x/Cy_de_la_Cruz/Cy_de_la_Cruz_0012.jpg") == "Cy_de_la_Cruz"


# --- digits


def test_digits_have_their_classes_and_measures():
    parts = [open_dataset("digits", split=s, image_size=8, channels=1, attributes=True) for s in ("train", "test")]
    assert parts[0].class_names == tuple("0123456789")
    assert parts[0].attribute_names == ("ink", "slant", "width", "height") and not any(parts[0].binary_attributes)
    measures = np.concatenate([attributes(part) for part in parts])
    scans = load_digits()
    np.testing.assert_allclose(measures[:, 0], scans.data.mean(1) / 16, rtol=1e-6)
    of_class = [np.median(measures[scans.target == c], axis=0) for c in range(10)]
    assert of_class[1][2] == min(median[2] for median in of_class)  # the ones are the narrowest
    assert np.isfinite(measures).all()
    assert "attributes" not in open_dataset("digits", split="train", image_size=8, channels=1)[0]


def test_measures_of_shapes_that_are_known():
    boxes, expected = [], []
    for top, left, height, width in ((0, 0, 8, 3), (2, 1, 5, 7), (3, 4, 1, 1), (0, 0, 8, 8)):
        scan = np.zeros((8, 8))
        scan[top : top + height, left : left + width] = 0.5
        boxes.append(scan)
        expected.append((0.5 * height * width / 64, width, height))
    measures = digits.measure(np.stack(boxes[:2] + boxes[3:]))
    np.testing.assert_allclose(measures[:, [0, 2, 3]], expected[:2] + expected[3:], rtol=1e-6)
    np.testing.assert_allclose(measures[:, 1], 0, atol=1e-6)
    to_the_right = np.eye(8)[::-1]  # "/"
    to_the_left = np.eye(8)
    steep = np.zeros((8, 8))
    steep[np.arange(8), 4 - np.arange(8) // 2] = 1  # a column for two rows
    slants = digits.measure(np.stack([to_the_right, to_the_left, steep]))[:, 1]
    np.testing.assert_allclose(slants, [1, -1, 0.5], atol=0.03)


# --- fashion


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_fashion_has_the_images_and_classes_of_its_idx_files(tmp_path, suffix):
    made = write_fashion(tmp_path, suffix)
    for split, (images, classes) in made.items():
        dataset = open_dataset("fashion", split=split, image_size=28, channels=1, data_dir=tmp_path)
        np.testing.assert_array_equal(np.stack([example["image"][:, :, 0] for example in dataset]), images)
        assert [example["label"] for example in dataset] == classes.tolist()
        colour = open_dataset("fashion", split=split, image_size=28, channels=3, data_dir=tmp_path)[2]["image"]
        np.testing.assert_array_equal(colour, np.repeat(images[2][..., None], 3, axis=-1))
    assert len(dataset.class_names) == 10 and dataset.class_names[9] == "Ankle boot"
    with pytest.raises(UserError, match="'fashion' has no attributes"):
        open_dataset("fashion", split="test", image_size=28, channels=1, data_dir=tmp_path, attributes=True)


def test_idx_files_that_do_not_fit_are_refused(tmp_path):
    images = "train-images-idx3-ubyte.gz"
    for name, spoil, message in (
        ("cut", lambda f: (f / images).write_bytes((f / images).read_bytes()[:200]), "does not unpack"),
        ("short", lambda f: write_short(f / images), "has 100 bytes, not 784"),
        ("kind", lambda f: write_idx(f / images, np.zeros((5, 5), np.uint8)), "is no IDX file of bytes in 3 dim"),
        ("count", lambda f: write_idx(f / images, np.zeros((7, 28, 28), np.uint8)), "has 7 images and 20 labels"),
        ("absent", lambda f: (f / "train-labels-idx1-ubyte.gz").unlink(), "no train-labels-idx1-ubyte.gz"),
    ):
        write_fashion(tmp_path / name)
        spoil(tmp_path / name)
        with pytest.raises(UserError, match=message):
            request("fashion", tmp_path / name, "train", attributes=False)
    write_folder(tmp_path / "pictures", {"a.jpg": small_images("any", 1)[0]})
    with pytest.raises(UserError, match="neither fashion's IDX files nor TFDS's fashion_mnist"):
        request("fashion", tmp_path / "pictures", "train", attributes=False)


def write_short(path):
    import gzip

    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28)) + bytes(100)))


# --- labels.csv


def pictures(folder, count=25):
    return write_folder(folder, {f"img{i}.png": v for i, v in enumerate(small_images("any", count, "PNG"))})


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def test_labels_csv_gives_a_class_and_attributes(tmp_path):
    folder = pictures(tmp_path / "pictures")
    rows = [[f"img{i}.png", i / 2, ("Katze, groß", "dog")[i % 2], i % 2] for i in reversed(range(25))]
    write_csv(folder / "labels.csv", [["file", "age", "kind", "smiles"], *rows])
    dataset = request("folder", folder)
    assert dataset.class_names == ("Katze, groß", "dog") and dataset.attribute_names == ("age", "smiles")
    assert [example["label"] for example in dataset] == [i % 2 for i in range(25)]
    np.testing.assert_array_equal(attributes(dataset), [[i / 2, i % 2] for i in range(25)])
    assert dataset.binary_attributes == (False, True)
    plain = request("folder", folder, attributes=False)
    assert plain[3].keys() == {"image", "label"} and plain.attribute_names == ()


def test_a_class_may_be_a_number_and_names_may_lack_the_suffix(tmp_path):
    folder = pictures(tmp_path / "pictures", 12)
    write_csv(folder / "labels.csv", [["file", "class"], *([f"img{i}", i] for i in range(12))])
    dataset = request("folder", folder, attributes=False)
    assert dataset.class_names == tuple(map(str, range(12)))  # "10" after "9"
    assert [example["label"] for example in dataset] == list(range(12))
    with pytest.raises(UserError, match="no attributes in .*: put a labels.csv with columns of numbers"):
        request("folder", folder)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["file", "a"], *([f"img{i}.png", i] for i in range(20))],
            "has 20 rows, .* 25 images, of which 5 have no row",
        ),
        ([["file", "a"], *([f"img{i % 24}.png", i] for i in range(25))], "has 25 rows for 24 names"),
        ([["file", "a"], *([f"img{i}.png", i, 0] for i in range(25))], "has 3 values for 'img0.png', but 2 columns"),
        ([["file", "a", "b"], *([f"img{i}.png", "x", "y"] for i in range(25))], "words in the columns a, b"),
        ([], "is empty: line 1 is the heading"),
    ],
)
def test_labels_csv_that_does_not_fit_is_refused(tmp_path, rows, message):
    folder = pictures(tmp_path / "pictures")
    write_csv(folder / "labels.csv", rows)
    with pytest.raises(UserError, match=message):
        request("folder", folder)


@pytest.mark.parametrize(("count", "test"), [(25, [9, 19]), (10, [9]), (30, [9, 19, 29]), (9, [8]), (2, [1])])
def test_every_tenth_image_of_a_folder_is_its_test(tmp_path, count, test):
    folder = pictures(tmp_path / "pictures", count)
    found = {
        split: list(request("folder", folder, split, attributes=False).entries) for split in ("train", "test", "all")
    }
    assert found == {"all": list(range(count)), "test": test, "train": [i for i in range(count) if i not in test]}


def test_one_image_has_no_splits(tmp_path):
    folder = pictures(tmp_path / "pictures", 1)
    assert len(request("folder", folder, attributes=False)) == 1
    with pytest.raises(UserError, match="has 1 image, too few for the split 'train': use 'all'"):
        request("folder", folder, "train", attributes=False)


def test_arrays_are_sources_too():
    source = ArraySource(np.arange(12).reshape(3, 2, 2, 1), "three")
    assert (len(source), source.key(2), source[1].ravel().tolist()) == (3, "2", [4, 5, 6, 7])
