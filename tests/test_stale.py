"""What is kept is known by all that it was made of: codes and their parts, heads, prepared data, lists of archives."""

import dataclasses
import json
import logging
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import open_dataset
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import build
from diffrep_jax.runs import provenance, weights
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _codes, _heads, evaluate
from diffrep_jax.tasks._code_files import Identity
from diffrep_jax.train import loop
from launch import main
from tests.task_runs import kept, killed_at_the_third_part, run_task
from tests.tiny import tiny_config

COUNT = 20  # of which a folder's train has 18


def pixels(seed, count=COUNT):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)


def write_images(folder, seed=0, count=COUNT):
    """Grey pictures 0.png, 1.png, ..., all of one size in bytes, as in a bitmap."""
    folder.mkdir(exist_ok=True)
    for i, image in enumerate(pixels(seed, count)):
        Image.fromarray(image).save(folder / f"{i}.bmp")


def write_labels(folder, classes="cat dog", shift=0, count=COUNT):
    """Two classes in turn, and a measure."""
    rows = [f"{i}.bmp,{classes.split()[(i + shift) % 2]},{i + shift}" for i in range(count)]
    (folder / "labels.csv").write_text("\n".join(["file,class,size", *rows]))


@pytest.fixture
def images(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    write_images(folder)
    write_labels(folder)
    monkeypatch.setenv("DIFFREP_DATA", str(folder))
    return folder


@pytest.fixture
def workdir(tmp_path):
    return kept(tmp_path / "run")


@pytest.fixture
def encodings(monkeypatch):
    """The number of images in each call of the encoder but the first one of a task, which is the fingerprint's."""
    calls, plain = [], Model.encode
    monkeypatch.setattr(Model, "encode", lambda self, x, *a, **k: calls.append(len(x)) or plain(self, x, *a, **k))
    return calls


def encode(model, workdir, **fields):
    settings = {"dataset": "folder", "split": "train", "batch_size": 18} | fields
    run_task("encode", model, workdir, **settings)
    return read(workdir)


def read(workdir, name="folder_train"):
    with np.load(workdir / "encode" / f"{name}.npz") as file:
        return dict(file)


def train_rows():
    return [i for i in range(COUNT) if i % 10 != 9]


# --- codes


def test_images_of_the_same_names_and_sizes_are_encoded_anew(tiny_model, workdir, images, encodings, caplog):
    encode(tiny_model, workdir)
    encodings.clear()
    encode(tiny_model, workdir)
    assert encodings == [18]  # the fingerprint alone
    sizes = [path.stat().st_size for path in images.glob("*.bmp")]
    write_images(images, seed=1)
    assert [path.stat().st_size for path in images.glob("*.bmp")] == sizes
    file = encode(tiny_model, workdir)
    expected = tiny_model.encode(pixels(1)[train_rows()][..., None])
    np.testing.assert_allclose(file["codes"], expected, atol=1e-5)
    assert caplog.text.count("not used but made anew: the images changed.") == 1


def test_labels_are_those_of_the_data_and_cost_no_encoding(tiny_model, workdir, images, encodings, caplog):
    codes = encode(tiny_model, workdir)["codes"]
    write_labels(images, classes="dog emu", shift=1)
    encodings.clear()
    with caplog.at_level(logging.INFO):
        file = encode(tiny_model, workdir)
    assert encodings == [18] and "labels of the data are not those in" in caplog.text
    np.testing.assert_array_equal(file["codes"], codes)
    assert [str(file["class_names"][i]) for i in file["label"]] == [("dog", "emu")[(i + 1) % 2] for i in train_rows()]
    assert file["attributes"][:, 0].tolist() == [i + 1 for i in train_rows()]
    (images / "labels.csv").unlink()
    assert not {"label", "attributes"} & encode(tiny_model, workdir).keys()


@pytest.mark.parametrize("task", ["probe", "manipulate", "evaluate"])
def test_readers_of_codes_see_labels_that_were_mended(tiny_model, workdir, images, task, monkeypatch):
    """Though the file holds others: each asks the data."""
    encode(tiny_model, workdir)
    write_labels(images, shift=5)
    seen = []
    plain = _codes.codes_of
    monkeypatch.setattr(_codes, "codes_of", lambda *a: seen.append(plain(*a)) or seen[-1])
    settings = {
        "probe": {"epochs": 1, "encode_batch_size": 18},
        "manipulate": {"attribute": "size", "num_images": 2, "scales": (0.5,), "epochs": 1, "encode_batch_size": 18},
        "evaluate": {"num_images": 0, "disentanglement_images": -1, "batch_size": 18},
    }
    run_task(task, tiny_model, workdir, dataset="folder", **settings[task])
    assert seen[0].attributes[:, 0].tolist() == [i + 5 for i in train_rows()]


def test_what_else_changed_is_said(tiny_model, workdir, images, caplog):
    encode(tiny_model, workdir)
    other = dataclasses.replace(tiny_model, variables=jax.tree.map(lambda x: x * 1.01, tiny_model.variables))
    encode(other, workdir)
    assert "made anew: the network changed." in caplog.text
    (images / "7.bmp").unlink()
    (images / "8.bmp").unlink()
    encode(other, workdir, num_images=7)
    assert "made anew: the images changed, 18 then and 17 now." in caplog.text
    encode(other, workdir)
    assert "made anew: they are those of the first 7 images, 17 are wanted." in caplog.text


def test_sampled_codes_are_not_taken_for_means():
    identity = Identity({"images": "a", "of": 3, "count": 3, "sampling.encode": "mean"}, np.ones(2))
    drawn = dataclasses.replace(identity, facts={**identity.facts, "sampling.encode": "sample", "sampling.seed": 1})
    why = "sampling.encode is {}, it was {}, sampling.seed is {}, it was {}"
    assert identity.stale(drawn.arrays()) == why.format("mean", "sample", None, 1)
    assert drawn.stale(identity.arrays()) == why.format("sample", "mean", 1, None)
    assert identity.stale(identity.arrays()) == ""


def test_a_file_of_an_earlier_version_is_made_anew(tiny_model, workdir, images, caplog):
    file = encode(tiny_model, workdir)
    old = {name: file[name] for name in ("codes", "label", "mean", "std", "fingerprint")} | {"owner": np.array("[]")}
    np.savez(workdir / "encode" / "folder_train.npz", **old)
    encode(tiny_model, workdir)
    assert "made anew: an earlier version wrote them" in caplog.text


def test_parts_of_a_killed_encoding_of_other_images_are_not_taken(
    tiny_model, workdir, images, encodings, monkeypatch, caplog
):
    monkeypatch.setattr(_codes, "PART", 6)
    with killed_at_the_third_part(monkeypatch):
        encode(tiny_model, workdir)
    write_images(images, seed=1)
    encodings.clear()
    file = encode(tiny_model, workdir)
    assert encodings == [18, 6, 6, 6] and "were not used but made anew: the images changed" in caplog.text
    expected = tiny_model.encode(pixels(1)[train_rows()][..., None])
    np.testing.assert_allclose(file["codes"], expected, atol=1e-5)


def test_an_image_that_cannot_be_read_shifts_no_label(tiny_model, workdir, images):
    (images / "4.bmp").write_bytes(b"no image")
    rows = [i for i in train_rows() if i != 4]
    for _ in range(2):  # made, and read
        codes = codes_of(tiny_model, workdir, images, max_bad_fraction=0.1)
        assert codes.attributes is not None and codes.attributes[:, 0].tolist() == rows
        np.testing.assert_allclose(codes.codes, tiny_model.encode(pixels(0)[rows][..., None]), atol=1e-5)
    with pytest.raises(UserError, match="1 of 18 images of .* cannot be read, more than data.max_bad_fraction=0.0"):
        codes_of(tiny_model, workdir, images, max_bad_fraction=0.0)
    write_images(images)
    assert len(codes_of(tiny_model, workdir, images, max_bad_fraction=0.0).codes) == 18


def codes_of(model, workdir, images, max_bad_fraction):
    config = tiny_config()
    with config.unlocked():
        config.data.max_bad_fraction = max_bad_fraction
    request = {"split": "train", "image_size": 8, "channels": 1, "attributes": True, "data_dir": images}
    return _codes.codes_of(model, open_dataset("folder", **request), Run.at(workdir, config), -1, 18)


def test_a_prior_is_told_of_images_that_changed_since(tiny_model, workdir, images, caplog):
    encode(tiny_model, workdir)
    request = {"split": "train", "image_size": 1, "channels": 8, "data_dir": workdir / "encode"}
    write_labels(images, shift=3)  # no matter
    assert len(open_dataset("codes", **request)) == 18 and "changed since" not in caplog.text
    write_images(images, seed=1)
    open_dataset("codes", **request)
    assert "folder_train.npz' has codes of images that have changed since" in caplog.text
    shutil.rmtree(images)  # it cannot be known
    assert len(open_dataset("codes", **request)) == 18 and caplog.text.count("changed since") == 1


# --- heads

SIZE = {"dataset": "folder", "attribute": "size", "num_images": 2, "scales": (0.5,), "epochs": 1}


def test_a_head_that_learned_other_labels_is_not_taken(tiny_model, workdir, images, caplog):
    run_task("probe", tiny_model, workdir, dataset="folder", epochs=1, encode_batch_size=18)
    _, folder = run_task("manipulate", tiny_model, workdir, **SIZE, encode_batch_size=18)
    assert _heads.read(folder / "head.npz").trained_by == "probe"
    write_labels(images, classes="dog cat")  # of another column
    run_task("manipulate", tiny_model, workdir, **SIZE, encode_batch_size=18)
    assert _heads.read(folder / "head.npz").trained_by == "probe" and "other images or labels" not in caplog.text
    write_labels(images, shift=3)
    run_task("manipulate", tiny_model, workdir, **SIZE, encode_batch_size=18)
    assert _heads.read(folder / "head.npz").trained_by == "manipulate"
    assert "head of 'size' in" in caplog.text and "is of other images or labels: not used" in caplog.text


def test_a_head_of_other_images_is_not_taken(tiny_model, workdir, images, caplog):
    run_task("probe", tiny_model, workdir, dataset="folder", epochs=1, encode_batch_size=18)
    write_images(images, seed=1)
    _, folder = run_task("manipulate", tiny_model, workdir, **SIZE, encode_batch_size=18)
    assert _heads.read(folder / "head.npz").trained_by == "manipulate"
    assert "is of other images or labels: not used" in caplog.text


# --- samples


def test_samples_of_other_weights_are_not_measured_as_the_runs(tiny_model, workdir, caplog):
    folder = workdir / "sample"
    folder.mkdir()
    np.savez(folder / "samples.npz", images=pixels(0)[..., None])
    (folder / "metrics.json").write_text(json.dumps({"weights": weights.digest(tiny_model.variables)}))
    task, run = evaluate.Evaluate(num_images=0), Run.at(workdir, tiny_config())
    (own,) = task._generated(tiny_model, run)
    assert own.path.name == "samples.npz" and not caplog.text
    other = jax.tree.map(np.asarray, tiny_model.variables)
    other["params"] = jax.tree.map(lambda x: x + np.float32(1e-6) * (x != 0), other["params"])  # a step later
    trained = dataclasses.replace(tiny_model, variables=other)
    assert task._generated(trained, run) == []
    assert "samples.npz is of another state of the network: not measured; run --task=sample again." in caplog.text
    assert len(dataclasses.replace(task, generated=(str(folder / "samples.npz"),))._generated(trained, run)) == 1


# --- prepared data


def prepare(raw, out):
    main.main(["--config=configs/dbae_folder.py", "--task=prepare", f"--data_dir={raw}", f"--workdir={out}"])


def test_images_that_were_replaced_are_not_taken_for_those_in_the_lmdb(images, tmp_path):
    out = tmp_path / "out"
    prepare(images, out)
    manifest = json.loads((out / "manifest.json").read_text())
    write_images(images, seed=1)
    with pytest.raises(UserError, match="The images in '.*images' have changed since '.*out' was written from them"):
        prepare(images, out)
    del manifest["source"]["fingerprint"]  # as an earlier version wrote it
    (out / "manifest.json").write_text(json.dumps(manifest))
    prepare(images, out)
    assert json.loads((out / "manifest.json").read_text()) == manifest


def test_labels_that_were_mended_are_not_taken_for_those_of_the_lmdb(images, tmp_path):
    out = tmp_path / "out"
    prepare(images, out)
    write_labels(images, shift=1)
    with pytest.raises(UserError, match="labels.csv' exists and has other labels than the data.*move it away"):
        prepare(images, out)
    (out / "labels.csv").unlink()
    prepare(images, out)
    rows = [line.split(",") for line in (out / "labels.csv").read_text().splitlines()]
    assert rows[0] == ["file", "class", "size"]
    assert [row[1:] for row in rows[1:]] == [[("cat", "dog")[(i + 1) % 2], f"{i + 1}.0"] for i in range(COUNT)]


# --- a run's data


def test_a_run_that_goes_on_with_other_images_says_so(images, tmp_path, caplog):
    config = tiny_config()
    with config.unlocked():
        config.data.name = "folder"
    run = Run.at(tmp_path / "run", config)
    (tmp_path / "run").mkdir()
    begin(run, 0)
    (known,) = provenance.starts(run.folder)
    assert known["data"]["images"] == 18 and len(known["data"]["fingerprint"]) == 16
    begin(run, 1)
    assert provenance.starts(run.folder)[-1]["changed"] == {} and not caplog.text
    write_images(images, seed=1)
    for i in range(3):
        (images / f"{i}.bmp").unlink()
    begin(run, 2)
    assert "The training images are not those of the last start: 18 then, 16 now." in caplog.text
    changed = provenance.starts(run.folder)[-1]["changed"]
    assert changed["data images"] == [18, 16] and changed["data fingerprint"][0] == known["data"]["fingerprint"]


def begin(run, step):
    """What a training does before its first step."""
    loop._record_start(loop.prepare(build(run.config.method), run, None), step)
