"""What a notebook does with trained runs: all edits in a few lines, and no file is written."""

import os

import numpy as np
import pytest

import diffrep_jax
from configs import latent_prior_digits
from diffrep_jax import data
from diffrep_jax.inference.edit import move
from diffrep_jax.methods.base import build
from diffrep_jax.runs.layout import Run
from diffrep_jax.train.loop import train
from tests.task_runs import kept, run_task


@pytest.fixture(scope="module")
def prior_run(tiny_model, tmp_path_factory):
    """The run of a prior of the tiny model's codes."""
    folder = kept(tmp_path_factory.mktemp("encoded") / "run")
    _, codes = run_task("encode", tiny_model, folder, num_images=20, batch_size=4)
    config = latent_prior_digits.get_config()
    with config.unlocked():
        config.data.channels = tiny_model.latent_dim
        config.method.mlp.update(width=16, layers=2, time_width=8)
        config.train.update(total_steps=2, batch_size=8, log_every=1)
        config.sampling.steps = 3
    workdir = tmp_path_factory.mktemp("prior")
    train(build(config.method), Run.at(workdir, config), codes)
    return workdir


def listing(*folders):
    """{path: (size, time of its last change)} of everything below."""
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}


def test_a_notebook_edits_and_generates_without_writing(tiny_run, prior_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = data.open_dataset("digits", split="test", image_size=8, channels=1)
    images = np.stack([dataset[i]["image"] for i in range(4)])
    before = listing(tiny_run, prior_run, tmp_path)

    ae, prior = diffrep_jax.load(os.fspath(tiny_run)), diffrep_jax.load(prior_run)
    encoded = ae.encoded(images)
    decoded = ae.decode(encoded)
    way = ae.interpolate(images[0], images[1], points=4)
    direction = np.eye(ae.latent_dim)[0]
    moved = ae.decode(move(encoded, direction, 0.3), x_T=ae.endpoint(encoded.z))
    other = ae.counterfactual(images[0], images[1], blocks=(0, 1), points=4)
    made = ae.generate(4, prior=prior)
    codes = prior.generate(4)

    assert listing(tiny_run, prior_run, tmp_path) == before
    for pictures in (decoded, way, moved, other, made):
        assert pictures.shape == (4, 8, 8, 1) and pictures.dtype == np.float32 and np.abs(pictures).max() <= 1
    np.testing.assert_array_equal(encoded.z, ae.encode(images))
    np.testing.assert_allclose(way[[0, -1]], decoded[:2], atol=1e-5)
    np.testing.assert_allclose(other, way, atol=1e-5)  # a DBAE's code is one block
    step = np.outer(np.ones(4), 0.3 * np.sqrt(8) * direction)
    np.testing.assert_allclose(move(encoded, direction, 0.3).z - encoded.z, step, atol=1e-6)
    np.testing.assert_allclose(ae.decode_generated(codes), made, atol=1e-5)
    assert codes.shape == (4, 8) and len(np.unique(codes.round(3), axis=0)) == 4


def test_what_is_generated_depends_on_its_number_alone(tiny_model, prior_run):
    prior = diffrep_jax.load(prior_run)
    whole = tiny_model.generate(4, prior=prior)
    np.testing.assert_allclose(tiny_model.generate(2, prior=prior, numbers=2), whole[2:], atol=1e-5)
    np.testing.assert_allclose(prior.generate(2, numbers=np.array([3, 0])), prior.generate(4)[[3, 0]], atol=1e-5)
