"""Codes on disk: the encoder's own, with the data set's labels; made once, taken up again, never another run's."""

import json
import shutil

import jax
import numpy as np
import pytest
from diffrep_jax.train.checkpoint import load_variables

import diffrep_jax
from diffrep_jax import config as configs
from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.methods.base import build
from diffrep_jax.sharding import make_mesh
from diffrep_jax.tasks import base, encode
from tests.tiny import tiny_config

FIELDS = {"split": "test", "num_images": 20, "batch_size": 8}


@pytest.fixture
def workdir(tmp_path):
    """A run's folder, for which codes are kept."""
    configs.save(tiny_config(), tmp_path)
    return tmp_path


def run(tiny_run, workdir, change=lambda variables: variables, **fields):
    config = tiny_config()
    with config.unlocked():
        config.tasks.encode.update(FIELDS | fields)
    method = build(config.method)
    variables = change(load_variables(tiny_run, method, make_mesh(devices=jax.local_devices())))
    return base.build("encode", config.tasks.encode, {}).run(method, variables, config, workdir)


def read(workdir):
    with np.load(workdir / "encode" / "digits_test.npz") as file:
        return dict(file)


@pytest.fixture
def encodings(monkeypatch):
    """The number of images in each call of the encoder."""
    calls, plain = [], Inference.encode
    monkeypatch.setattr(Inference, "encode", lambda self, x, *a: calls.append(len(x)) or plain(self, x, *a))
    return calls


def test_the_file_holds_codes_labels_and_moments(tiny_run, workdir):
    numbers = run(tiny_run, workdir)
    assert numbers == {"images": 20, "latent_dim": 8}
    test = data.open_dataset("digits", split="test", image_size=8, channels=1, attributes=True)
    examples = [test[i] for i in range(20)]
    file = read(workdir)
    expected = diffrep_jax.load(tiny_run).encode(np.stack([example["image"] for example in examples]))
    np.testing.assert_allclose(file["codes"], expected, atol=1e-5)
    np.testing.assert_allclose(file["mean"], np.mean(expected, 0), atol=1e-5)
    np.testing.assert_allclose(file["std"], np.std(expected, 0), atol=1e-5)
    np.testing.assert_array_equal(file["label"], [example["label"] for example in examples])
    np.testing.assert_array_equal(file["attributes"], [example["attributes"] for example in examples])
    assert file["class_names"].tolist() == list("0123456789")
    assert file["attribute_names"].tolist() == ["ink", "slant", "width", "height"]
    assert json.loads((workdir / "encode" / "metrics.json").read_text())["dataset"] == "digits"


def test_codes_that_are_there_are_used(tiny_run, workdir, encodings):
    run(tiny_run, workdir)
    assert sum(encodings) == 8 + 20  # the witness first
    encodings.clear()
    run(tiny_run, workdir, batch_size=5)
    assert encodings == [5]  # the witness alone


def test_what_was_killed_goes_on_where_it_was(tiny_run, workdir, encodings, monkeypatch):
    monkeypatch.setattr(encode, "PART", 8)
    run(tiny_run, workdir)
    whole = read(workdir)
    shutil.rmtree(workdir / "encode")
    plain, saved = encode._save, []

    def die_at_the_third(path, arrays):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(path)
        plain(path, arrays)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(encode, "_save", die_at_the_third)
        run(tiny_run, workdir)
    encodings.clear()
    run(tiny_run, workdir)
    assert encodings == [8, 4]  # the witness and the third part
    for name, values in read(workdir).items():
        np.testing.assert_array_equal(values, whole[name])
    assert not (workdir / "encode" / "digits_test.parts").exists()


def test_codes_of_another_network_or_other_images_are_made_anew(tiny_run, workdir, encodings):
    run(tiny_run, workdir)
    first = read(workdir)["codes"]
    encodings.clear()
    run(tiny_run, workdir, lambda variables: jax.tree.map(lambda x: x * 1.01, variables))
    assert sum(encodings) == 8 + 20
    assert not np.allclose(read(workdir)["codes"], first, rtol=1e-3)
    encodings.clear()
    run(tiny_run, workdir, num_images=12)
    assert sum(encodings) == 8 + 12
    assert len(read(workdir)["codes"]) == 12


def test_all_codes_serve_where_fewer_are_asked_for(tiny_run, workdir, encodings):
    run(tiny_run, workdir, num_images=-1)
    encodings.clear()
    numbers = run(tiny_run, workdir, num_images=12)
    assert numbers["images"] == 12 and encodings == [8]  # the witness alone
    assert len(read(workdir)["codes"]) == 297  # and nothing is lost


def test_a_damaged_file_is_made_anew(tiny_run, workdir):
    run(tiny_run, workdir)
    path = workdir / "encode" / "digits_test.npz"
    whole = read(workdir)["codes"]
    path.write_bytes(path.read_bytes()[:200])
    run(tiny_run, workdir)
    np.testing.assert_array_equal(read(workdir)["codes"], whole)


def test_the_probe_takes_the_same_codes(tiny_run, workdir, encodings):
    for split in ("train", "test"):
        run(tiny_run, workdir, split=split, num_images=-1, batch_size=64)
    encodings.clear()
    config = tiny_config()
    with config.unlocked():
        config.tasks.probe.update(epochs=1)
    method = build(config.method)
    variables = load_variables(tiny_run, method, make_mesh(devices=jax.local_devices()))
    base.build("probe", config.tasks.probe, {}).run(method, variables, config, workdir)
    assert encodings == [64, 64]  # the witness of each split


def test_more_images_than_there_are_is_refused(tiny_run, workdir):
    with pytest.raises(UserError, match="9999 images were asked for: split 'test' of 'digits' has 297"):
        run(tiny_run, workdir, num_images=9999)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "batch size 0 of tasks.encode"),
        ({"num_images": 0}, "tasks.encode.num_images 0"),
        ({"dataset": "digit"}, "digit"),
        ({"split": "tests"}, "tests"),
    ],
)
def test_bad_settings_are_refused(fields, message, tiny_run, workdir):
    with pytest.raises(UserError, match=message):
        run(tiny_run, workdir, **fields)
    assert not (workdir / "encode").exists()
