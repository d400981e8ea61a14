"""Codes of a stochastic encoder as samples: their distribution, their seed, and where they are kept and named."""

import dataclasses
import json

import numpy as np
import pytest

from configs import dbae_digits
from diffrep_jax.errors import UserError
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from tests.coded_models import opened, small_config
from tests.tiny import tiny_config

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def model():
    config = tiny_config()
    with config.unlocked():
        config.method.stochastic_encoder = True
        config.sampling.update(sampler="euler", steps=1)
    return opened(config)


def test_samples_have_the_encoders_mean_and_deviation(model):
    n = 1024
    mean = model.encode(IMAGES[:1])[0]
    deviation = model.encode(IMAGES[:1], noise=np.ones((1, 8)))[0] - mean
    drawn = model.encode(np.repeat(IMAGES[:1], n, axis=0), encode="sample")
    np.testing.assert_array_less(np.abs(drawn.mean(0) - mean), 4.5 * deviation / np.sqrt(n))
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=0.12)
    noise = (drawn - mean) / deviation
    assert np.abs(np.corrcoef(noise.T) - np.eye(8)).max() < 0.16


def test_a_sample_goes_by_seed_and_number_alone(model):
    whole = model.encode(IMAGES, encode="sample")
    parts = [model.encode(IMAGES[i : i + 1], numbers=i, encode="sample") for i in range(4)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(model.encode(IMAGES, encode="sample"), whole)
    assert np.abs(model.encode(IMAGES, encode="sample", seed=1) - whole).max() > 0.1
    np.testing.assert_array_equal(model.encoded(IMAGES, how=model.recipe(None, {"encode": "sample"})).z, whole)
    np.testing.assert_array_equal(model.encode(IMAGES), model.encode(IMAGES, noise=np.zeros((4, 8))))


def run(name, model, out, encode, **settings):
    """(metrics.json, the folder)."""
    config = tiny_config()
    with config.unlocked():
        config.sampling.update(sampler="euler", steps=1, encode=encode)
        config.tasks[name].update(settings)
    task = base.build(name, config.tasks[name], {})
    task.run(dataclasses.replace(model, sampling=model.recipe(None, {"encode": encode})), Run.at(out, config))
    return json.loads((out / name / "metrics.json").read_text()), out / name


def test_tasks_use_and_name_the_way_to_encode(model, tmp_path):
    run_config.save(tiny_config(), tmp_path)
    codes = {}
    for encode in ("mean", "sample"):
        numbers, folder = run("reconstruct", model, tmp_path, encode, num_images=4, batch_size=4)
        assert numbers["encode"] == encode
        with np.load(folder / "arrays.npz") as arrays:
            images, codes[encode] = arrays["images"], arrays["codes"]
        np.testing.assert_allclose(codes[encode], model.encode(images, encode=encode), rtol=1e-4, atol=1e-5)
        numbers, folder = run("encode", model, tmp_path, encode, split="test", num_images=4, batch_size=4)
        assert numbers["encode"] == encode and ("encode_seed" in numbers) == (encode == "sample")
        with np.load(folder / "digits_test.npz") as kept:  # those of the other way do not serve
            np.testing.assert_allclose(kept["codes"], codes[encode], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(kept["fingerprint"], model.fingerprint(), rtol=1e-4, atol=1e-5)
    assert np.abs(codes["mean"] - codes["sample"]).max() > 0.1


def test_rows_of_an_evaluation_may_differ_in_it(model, tmp_path):
    rows = ({"encode": "mean"}, {"encode": "sample"})
    numbers, _ = run("evaluate", model, tmp_path, "mean", rows=rows, num_images=4, batch_size=4)
    assert [row["encode"] for row in numbers["rows"]] == ["mean", "sample"]
    assert numbers["rows"][0]["mse"] != numbers["rows"][1]["mse"]


def test_a_deterministic_encoder_has_no_samples():
    deterministic = opened(small_config("pdae"))
    with pytest.raises(UserError, match="encode=sample is of no use: the encoder of this PDAE is deterministic"):
        deterministic.encode(IMAGES, encode="sample")
    with pytest.raises(UserError, match="Unknown way to encode 'smaple' .*'sample'"):
        deterministic.encode(IMAGES, encode="smaple")


def test_the_published_settings_are_one_value_away():
    config = dbae_digits.get_config("encoder=stochastic")
    assert config.sampling.encode == "mean" and config.method.stochastic_encoder
