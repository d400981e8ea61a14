"""Noto Emoji: the package in all of its forms is the same data set; its attributes; what is refused."""

import json

import numpy as np
import pytest

from diffrep_jax.data import open_dataset
from diffrep_jax.data.sources import npm
from diffrep_jax.errors import UserError
from launch import main
from tests.made_data import EMOJI, TONES, emoji_package, write_folder, write_tgz

TGZ = "emoji-datasource-google-16.0.0.tgz"


def request(data_dir, split="all", size=64):
    return open_dataset("emoji", split=split, image_size=size, channels=3, data_dir=data_dir, attributes=True)


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "raw" / "package", emoji_package())
    return tmp_path / "raw"


def names_of(example, dataset):
    return {dataset.attribute_names[i] for i in np.flatnonzero(example["attributes"])}


def test_each_picture_has_the_attributes_that_it_shows(folder):
    dataset = request(folder)
    assert len(dataset) == 12 + 5 * 6
    assert dataset.binary_attributes
    assert [name for name in dataset.attribute_names if "skin" in name] == [
        *("yellow skin", "light skin", "medium-light skin", "medium skin", "medium-dark skin", "dark skin")
    ]
    shown = {
        dataset.source.key(i).removesuffix(".png"): (dataset.class_names[example["label"]], names_of(example, dataset))
        for i, example in enumerate(dataset)
    }
    assert {name: shown[name][0] for name in EMOJI} == {name: group[0] for name, group in EMOJI.items()}
    assert shown["1f600"][1] == {"smiling face"}
    assert shown["1f63a"][1] == shown["1f40b"][1] == {"animal"}
    assert shown["1f1e8-1f1ed"][1] == {"flag"}
    assert shown["1f44b"][1] == {"yellow skin"}
    assert shown["1f44b-1f3fe"][1] == {"medium-dark skin"}
    assert shown["1f471-1f3fb"][1] == {"light skin", "blond hair"}
    assert shown["1f468-1f3ff-200d-1f9b0"][1] == {"dark skin", "man", "red hair"}
    assert shown["1f3c3-1f3fd-200d-2640-fe0f"][1] == {"medium skin", "woman"}
    assert shown["1f46b"][1] == {"yellow skin", "woman", "man"}
    # A family without skin tones is a black symbol, the sign of the sex alone is one too.
    assert shown["1f468-200d-1f467"][1] == shown["2640-fe0f"][1] == set()


def test_all_skin_tones_of_an_emoji_are_in_one_split(folder):
    splits = {split: request(folder, split) for split in ("train", "test")}
    emoji = {
        split: {"-".join(c for c in dataset.source.key(i)[:-4].split("-") if c not in TONES) for i in dataset.entries}
        for split, dataset in splits.items()
    }
    assert emoji["test"] == {list(EMOJI)[9]}  # the tenth by sort_order, of which the first has no picture
    assert emoji["train"] == set(EMOJI) - emoji["test"]
    assert sum(map(len, splits.values())) == len(request(folder))


def test_every_form_of_the_package_is_the_same_data_set(tmp_path, folder):
    prepared = tmp_path / "prepared"
    paths = [f"--data_dir={folder}", f"--workdir={prepared}"]
    main.main(["--config=configs/dbae_emoji.py", "--task=prepare", *paths])
    write_folder(tmp_path / "modules" / "node_modules" / "emoji-datasource-google", emoji_package())
    package = write_tgz(tmp_path / TGZ, emoji_package())
    for split in ("train", "test", "all"):
        expected = list(request(folder, split))
        for form in (folder / "package", tmp_path / "modules", package, tmp_path, prepared):
            given = list(request(form, split))
            assert len(given) == len(expected)
            for one, other in zip(given, expected, strict=True):
                np.testing.assert_array_equal(one["image"], other["image"])
                np.testing.assert_array_equal(one["attributes"], other["attributes"])
                assert one["label"] == other["label"]
    image = request(package)[3]["image"]  # the hand, second picture of the third emoji, is laid on white
    np.testing.assert_array_equal(image[:16], 255)
    np.testing.assert_array_equal(image[16:48, 16:48], np.broadcast_to(np.uint8([40, 40, 99]), (32, 32, 3)))


def test_no_data_says_how_to_get_them(tmp_path):
    how = "npm pack emoji-datasource-google.* --data_dir"
    empty, other = tmp_path / "empty", write_folder(tmp_path / "other", {"notes.txt": b""})
    empty.mkdir()
    for data_dir in (None, tmp_path / "nowhere", empty, other):
        with pytest.raises(UserError, match=how) as caught:
            request(data_dir)
        assert "\n" not in str(caught.value)
    two = write_folder(tmp_path / "two", {f"emoji-datasource-google-{i}.0.0.tgz": b"" for i in (15, 16)})
    with pytest.raises(UserError, match="There is 2 packages, of which one"):
        request(two)


LISTED = json.loads(emoji_package()["emoji.json"])


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("no json", "is not that of emoji-datasource-google"),
        ("[" * 100_000, "is not that of emoji-datasource-google"),
        ({}, "ValueError.'no images'"),
        ([{"image": "1f600.png"}], "KeyError.'sort_order'"),
        ([LISTED[-1] | {"image": "../../secret.png"}], "image '../../secret.png'"),
        ([LISTED[-1] | {"category": None}], "TypeError"),
        ([LISTED[-1] | {"image": "1f601.png"}], "lacks 1 of 1 images, such as 1f601.png"),
    ],
)
def test_a_list_that_is_not_theirs_is_refused(tmp_path, listed, message):
    text = listed if isinstance(listed, str) else json.dumps(listed)
    files = emoji_package() | {"emoji.json": text.encode()}
    for data_dir in (write_folder(tmp_path / "package", files), write_tgz(tmp_path / TGZ, files)):
        with pytest.raises(UserError, match=message):
            request(data_dir)


def test_a_damaged_package_is_refused(tmp_path, folder, monkeypatch):
    whole = write_tgz(tmp_path / TGZ, emoji_package()).read_bytes()
    for data in (whole[: len(whole) // 2], b"junk", b""):
        (tmp_path / TGZ).write_bytes(data)
        with pytest.raises(UserError, match="does not unpack"):
            request(tmp_path / TGZ)
    with pytest.raises(UserError, match="has no emoji.json: give the .tgz"):
        request(write_tgz(tmp_path / "other.tgz", {"package.json": b""}))
    monkeypatch.setattr(npm, "MAX_BYTES", 5000)
    with pytest.raises(UserError, match="unpacks to more than 5,000 bytes"):
        request(write_tgz(tmp_path / TGZ, emoji_package()))
    (folder / "package" / "img/google/64/1f44b-1f3fb.png").unlink()
    with pytest.raises(UserError, match="lacks 1 of 42 images, such as 1f44b-1f3fb.png: run 'npm pack"):
        request(folder)


def test_a_prepared_folder_that_does_not_fit_is_refused(tmp_path, folder):
    paths = [f"--data_dir={folder}", f"--workdir={tmp_path / 'out'}"]
    main.main(["--config=configs/dbae_emoji.py", "--task=prepare", "--config.tasks.prepare.size=32", *paths])
    table = tmp_path / "out" / "emoji.json"
    listed = json.loads(table.read_text())
    assert len(request(tmp_path / "out", size=32)) == 42
    for change, message in ((listed[:-1], "41 rows.*42 images"), ([{}], "is not what --task=prepare wrote")):
        table.write_text(json.dumps(change))
        with pytest.raises(UserError, match=message):
            request(tmp_path / "out")
