"""TFDS data sets, prepared here as array_record without TensorFlow: images, splits, labels; one trains end to end."""

import io
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import open_dataset
from diffrep_jax.data.sources import open_source
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.runs.layout import Run
from diffrep_jax.train.loop import train
from launch import main
from tests.made_data import encoded, scene
from tests.tiny import tiny_config

SIZES = {"train": 14, "validation": 3, "test": 4}
TRAITS = tuple(f"Trait_{j:02}" for j in range(40))
CLASSES = ("shirt", "shoe", "bag")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A TFDS data directory with celeb_a, fashion_mnist, a data set in another format and an old version."""
    import tensorflow_datasets as tfds

    class Made(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.0")

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in SIZES if split != "validation" or self.faces}

        def _generate_examples(self, split):
            for number in range(SIZES[split]):
                yield number, self.example(split, number)

    class CelebA(Made):
        faces = True

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(218, 178, 3), encoding_format="jpeg"),
                "attributes": {trait: np.bool_ for trait in TRAITS},
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def example(self, split, number):
            image = io.BytesIO(encoded(face(split, number), "JPEG"))
            return {"image": image, "attributes": dict(zip(TRAITS, traits(split, number), strict=True))}

    class FashionMnist(Made):
        faces = False

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(names=CLASSES),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def example(self, split, number):
            return {"image": io.BytesIO(encoded(scene(number, 28, 28).convert("L"), "PNG")), "label": number % 3}

    class Sound(Made):
        faces = False

        def _info(self):
            features = {
                "a": tfds.features.Image(shape=(None, None, 1)),
                "b": tfds.features.Image(shape=(None, None, 1)),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def example(self, split, number):
            return {"a": io.BytesIO(encoded(Image.new("L", (4, 4)), "PNG"))} | {
                "b": io.BytesIO(encoded(Image.new("L", (4, 4)), "PNG"))
            }

    folder = tmp_path_factory.mktemp("tensorflow datasets")
    for builder in (CelebA, FashionMnist, Sound):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    shutil.copytree(folder / "fashion_mnist" / "2.0.0", folder / "fashion_mnist" / "1.0.0")
    return folder


def face(split, number):
    return scene(1000 * list(SIZES).index(split) + number, 178, 218)


def traits(split, number):
    return np.random.default_rng((list(SIZES).index(split), number)).random(40) < 0.5


def request(name, data_dir, split, size=64, channels=3, **options):
    return open_dataset(name, split=split, image_size=size, channels=channels, data_dir=data_dir, **options)


@pytest.mark.parametrize("below", ["", "celeb_a", "celeb_a/2.0.0"])
def test_celeba_has_its_splits_crop_and_attributes(data_dir, below):
    seen = 0
    for split, count in SIZES.items():
        dataset = request("celeba", data_dir / below, split, attributes=True)
        assert dataset.attribute_names == TRAITS and all(dataset.binary_attributes)
        expected = {}
        for number in range(count):
            small = Image.open(io.BytesIO(encoded(face(split, number), "JPEG"))).crop((25, 57, 153, 185))
            pixels = np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR))
            expected[pixels.tobytes()] = traits(split, number).astype(np.float32).tolist()
        # TFDS shuffles inside a split: each image must be there once, with its own attributes.
        found = {example["image"].tobytes(): example["attributes"].tolist() for example in dataset}
        assert found == expected
        seen += count
    assert len(dataset.source) == seen
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again[1]["image"], dataset[1]["image"])
    assert "attributes" not in request("celeba", data_dir, "train")[0]
    assert "tensorflow" not in sys.modules


def test_fashion_has_its_splits_and_classes(data_dir):
    dataset = request("fashion", data_dir, "train", 28, 1)
    assert dataset.class_names == CLASSES and len(dataset) == SIZES["train"]
    found = {example["image"].tobytes(): example["label"] for example in dataset}
    assert found == {np.asarray(scene(i, 28, 28).convert("L")).tobytes(): i % 3 for i in range(SIZES["train"])}
    assert len(request("fashion", data_dir, "test", 28, 1)) == SIZES["test"]
    assert dataset.source.path.name == "2.0.0"  # the newest version
    with pytest.raises(UserError, match="fashion.*has no attributes"):
        request("fashion", data_dir, "train", attributes=True)


def test_any_tfds_data_set_is_a_folder_of_images(data_dir):
    dataset = request("folder", data_dir / "fashion_mnist", "all", 28, 1)
    assert (len(dataset), dataset.class_names) == (SIZES["train"] + SIZES["test"], CLASSES)
    keys = [dataset.source.key(i) for i in (0, 13, 14, 17)]
    assert keys == ["train-0", "train-13", "test-0", "test-3"]
    with pytest.raises(UserError, match="only celeb_a/2.0.0, .* give the TFDS data set that is meant"):
        request("folder", data_dir, "all")


def test_what_is_no_image_data_set_or_not_array_record_is_refused(data_dir, tmp_path):
    import tensorflow_datasets as tfds

    with pytest.raises(UserError, match=r"images \['a', 'b'\], not one"):
        open_source(data_dir / "sound")
    version = data_dir / "celeb_a" / "2.0.0"
    copy = tmp_path / "x" / "celeb_a" / "2.0.0"
    copy.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (copy / name).write_text((version / name).read_text().replace("array_record", "tfrecord"))
    assert tfds.builder_from_directory(copy).info.file_format.value == "tfrecord"
    with pytest.raises(UserError, match="has the format tfrecord: prepare it again with file_format='array_record'"):
        request("celeba", tmp_path / "x", "train")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tensorflow_datasets.core.features.image_feature.Image", "hostile.Image", "names the Python class 'hostile"),
        ("tensorflow_datasets.core.features.image_feature", "tensorflow_datasets.core.hostile", "which is not one of"),
        ('"pythonClassName"', '"python_class_name"', None),
        ("{", "[" * 100_000, "is no list of features"),
        ("{", "", "is no list of features"),
        ('"pythonClassName"', '"className"', "does not open"),
    ],
)
def test_features_of_other_modules_are_not_imported(data_dir, tmp_path, monkeypatch, old, new, message):
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    version = shutil.copytree(data_dir / "celeb_a" / "2.0.0", tmp_path / "celeb_a" / "2.0.0")
    text = (version / "features.json").read_text()
    assert old in text
    (version / "features.json").write_text(text.replace(old, new, 1))
    if message is None:
        assert len(open_source(tmp_path)) == sum(SIZES.values())
    else:
        with pytest.raises(UserError, match=message) as caught:
            open_source(tmp_path)
        assert "\n" not in str(caught.value)
    (version / "features.json").write_text(json.dumps({"type": "hostile.Image", "content": {}}))  # the old form
    with pytest.raises(UserError, match="names the Python class 'hostile.Image'"):
        open_source(tmp_path)
    assert not (tmp_path / "it-ran").exists()


def test_a_damaged_data_set_is_one_line(data_dir, tmp_path):
    version = shutil.copytree(data_dir / "celeb_a" / "2.0.0", tmp_path / "celeb_a" / "2.0.0")
    whole = (version / "dataset_info.json").read_text()
    for text in ("", "{", "[]", whole.replace("2.0.0", "two"), whole.replace('"shardLengths"', '"lengths"')):
        (version / "dataset_info.json").write_text(text)
        with pytest.raises(UserError, match="celeb_a/2.0.0' does not open") as caught:
            open_source(tmp_path)
        assert "\n" not in str(caught.value)
    (version / "dataset_info.json").write_text(whole)
    for file in version.glob("*train*array_record*"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError):
        request("celeba", tmp_path, "train")[0]


def test_it_trains_end_to_end(data_dir, tmp_path, tiny_run):  # whose compiled step is used again
    config = tiny_config(total_steps=2)
    config.data.name = "celeba"
    state = train(build(config.method), Run.at(tmp_path, config), data_dir)
    assert int(state.step) == 2
    assert (tmp_path / "checkpoints" / "2").is_dir()
    assert "tensorflow" not in sys.modules


def test_it_is_prepared_as_an_lmdb_with_its_attributes(data_dir, tmp_path):
    command = ["--config=configs/dbae_celeba.py", "--task=prepare", f"--data_dir={data_dir}", f"--workdir={tmp_path}"]
    main.main(command)
    prepared = open_dataset("folder", split="all", image_size=64, channels=3, data_dir=tmp_path)
    original = open_dataset("folder", split="all", image_size=64, channels=3, data_dir=data_dir / "celeb_a")
    assert len(prepared) == len(original) == sum(SIZES.values())
    for a, b in zip(prepared, original, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    labelled = request("celeba", tmp_path, "train", attributes=True)
    assert labelled.source.kind == "lmdb" and labelled.attribute_names == TRAITS
    first = request("celeba", data_dir, "train", attributes=True)[0]
    np.testing.assert_array_equal(labelled[0]["attributes"], first["attributes"])
