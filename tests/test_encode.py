"""Codes on disk: the encoder's own, with the data set's labels; made once, taken up again, never another run's."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _codes
from tests.task_runs import kept, killed_at_the_third_part, run_task
from tests.tiny import tiny_config

FIELDS = {"split": "test", "num_images": 20, "batch_size": 4}


@pytest.fixture
def workdir(tmp_path):
    """A run's folder, for which codes are kept."""
    return kept(tmp_path)


def run(model, workdir, **fields):
    return run_task("encode", model, workdir, **FIELDS | fields)[0]


def read(workdir):
    with np.load(workdir / "encode" / "digits_test.npz") as file:
        return dict(file)


@pytest.fixture
def encodings(monkeypatch):
    """The number of images in each call of the encoder."""
    calls, plain = [], Model.encode
    monkeypatch.setattr(Model, "encode", lambda self, x, *a, **k: calls.append(len(x)) or plain(self, x, *a, **k))
    return calls


def test_the_file_holds_codes_labels_and_moments(tiny_model, workdir):
    numbers = run(tiny_model, workdir)
    assert numbers == {"images": 20, "latent_dim": 8}
    test = data.open_dataset("digits", split="test", image_size=8, channels=1, attributes=True)
    examples = [test[i] for i in range(20)]
    file = read(workdir)
    expected = tiny_model.encode(np.stack([example["image"] for example in examples]))
    np.testing.assert_allclose(file["codes"], expected, atol=1e-5)
    np.testing.assert_allclose(file["mean"], np.mean(expected, 0), atol=1e-5)
    np.testing.assert_allclose(file["std"], np.std(expected, 0), atol=1e-5)
    np.testing.assert_array_equal(file["label"], [example["label"] for example in examples])
    np.testing.assert_array_equal(file["attributes"], [example["attributes"] for example in examples])
    assert file["class_names"].tolist() == list("0123456789")
    assert file["attribute_names"].tolist() == ["ink", "slant", "width", "height"]
    assert json.loads((workdir / "encode" / "metrics.json").read_text())["dataset"] == "digits"


def test_codes_that_are_there_are_used(tiny_model, workdir, encodings):
    run(tiny_model, workdir)
    assert sum(encodings) == 4 + 20  # the fingerprint first
    encodings.clear()
    run(tiny_model, workdir, batch_size=2)
    assert encodings == [2]  # the fingerprint alone


def test_what_was_killed_goes_on_where_it_was(tiny_model, workdir, encodings, monkeypatch):
    monkeypatch.setattr(_codes, "PART", 8)
    run(tiny_model, workdir)
    whole = read(workdir)
    shutil.rmtree(workdir / "encode")
    with killed_at_the_third_part(monkeypatch):
        run(tiny_model, workdir)
    encodings.clear()
    run(tiny_model, workdir)
    assert encodings == [4, 4]  # the fingerprint and the third part
    for name, values in read(workdir).items():
        np.testing.assert_array_equal(values, whole[name])
    assert not (workdir / "encode" / "digits_test.parts").exists()


def test_codes_of_another_network_or_other_images_are_made_anew(tiny_model, workdir, encodings):
    run(tiny_model, workdir)
    first = read(workdir)["codes"]
    encodings.clear()
    trained = dataclasses.replace(tiny_model, variables=jax.tree.map(lambda x: x * 1.01, tiny_model.variables))
    run(trained, workdir)
    assert sum(encodings) == 4 + 20
    assert not np.allclose(read(workdir)["codes"], first, rtol=1e-3)


@pytest.mark.parametrize("kept", [20, -1])
def test_codes_serve_where_fewer_are_asked_for(tiny_model, workdir, encodings, kept):
    run(tiny_model, workdir, num_images=kept, batch_size=99)
    file = read(workdir)
    encodings.clear()
    numbers = run(tiny_model, workdir, num_images=12)
    assert numbers["images"] == 12 and encodings == [4]  # the fingerprint alone
    for name, values in read(workdir).items():  # and nothing is lost
        np.testing.assert_array_equal(values, file[name])
    assert len(file["codes"]) == (20 if kept == 20 else 297)


def test_readers_get_as_many_codes_as_they_ask_for(tiny_model, workdir):
    test = data.open_dataset("digits", split="test", image_size=8, channels=1, attributes=True)
    more, fewer, alone = (
        _codes.codes_of(tiny_model, test, Run.at(folder, tiny_config()), count, 4)
        for folder, count in ((workdir, 20), (workdir, 12), (workdir / "alone", 12))
    )
    assert len(more.codes) == 20 and fewer.rows.tolist() == list(range(12))
    np.testing.assert_allclose(fewer.codes, alone.codes, atol=1e-5)
    np.testing.assert_allclose(fewer.mean, alone.mean, atol=1e-5)
    np.testing.assert_allclose(fewer.std, alone.std, atol=1e-5)
    assert fewer.attributes is not None and alone.attributes is not None and alone.label is not None
    np.testing.assert_array_equal(fewer.attributes, alone.attributes)
    np.testing.assert_array_equal(fewer.label, alone.label)
    assert fewer.identity.text() == alone.identity.text()  # a head learned from either is known by the other


def test_an_encoding_of_fewer_images_loses_no_parts_of_a_stopped_one(tiny_model, workdir, encodings, monkeypatch):
    monkeypatch.setattr(_codes, "PART", 8)
    with killed_at_the_third_part(monkeypatch):
        run(tiny_model, workdir)
    parts = workdir / "encode" / "digits_test.parts"
    encodings.clear()
    run(tiny_model, workdir, num_images=6)
    assert encodings == [4] and read(workdir)["rows"].tolist() == list(range(6))
    run(tiny_model, workdir, num_images=8)
    assert sorted(path.name for path in parts.iterdir()) == ["000000000.npz", "000000008.npz"]
    encodings.clear()
    run(tiny_model, workdir)
    assert encodings == [4, 4]  # the fingerprint, and the third part
    assert read(workdir)["rows"].tolist() == list(range(20)) and not parts.exists()


def test_a_damaged_file_is_made_anew(tiny_model, workdir):
    run(tiny_model, workdir)
    path = workdir / "encode" / "digits_test.npz"
    whole = read(workdir)["codes"]
    content = path.read_bytes()
    place = content.index(whole[10].tobytes())  # so that the file opens, and a checksum is wrong
    for damaged in (content[:200], content[:place] + bytes(4) + content[place + 4 :]):
        path.write_bytes(damaged)
        run(tiny_model, workdir)
        np.testing.assert_array_equal(read(workdir)["codes"], whole)


def test_the_probe_takes_the_same_codes(tiny_model, workdir, encodings):
    for split in ("train", "test"):
        run(tiny_model, workdir, split=split, num_images=-1, batch_size=99)
    encodings.clear()
    run_task("probe", tiny_model, workdir, epochs=1)
    assert encodings[:2] == [4, 4]  # the fingerprint, for each split
    assert sum(encodings[2:]) == 1500  # the mirrored training images, which nothing keeps


def test_in_a_folder_that_is_no_run_nothing_is_kept(tiny_model, tmp_path, encodings):
    """As inside training, whose previews have no config."""
    for _ in range(2):
        assert run(tiny_model, tmp_path / "preview") == {"images": 20, "latent_dim": 8}
    assert sum(encodings) == 2 * (4 + 20)
    assert [path.name for path in (tmp_path / "preview" / "encode").iterdir()] == ["metrics.json"]


def test_more_images_than_there_are_is_refused(tiny_model, workdir):
    with pytest.raises(UserError, match="9999 images were asked for: split 'test' of 'digits' has 297"):
        run(tiny_model, workdir, num_images=9999)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch size 0 of tasks.encode"),
        ({"num_images": 0}, "tasks.encode.num_images 0"),
        ({"dataset": "digit"}, "digit"),
        ({"split": "tests"}, "tests"),
    ],
)
def test_bad_settings_are_refused(fields, message, tiny_model, workdir):
    with pytest.raises(UserError, match=message):
        run(tiny_model, workdir, **fields)
    assert not (workdir / "encode").exists()
