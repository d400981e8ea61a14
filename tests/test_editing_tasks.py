"""Counterfactuals and manipulation: their ends are reconstructions, and codes move as the closed forms say."""

import json

import jax
import numpy as np
import pytest
from diffrep_jax.train.checkpoint import load_variables

from diffrep_jax import config as configs
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.sharding import make_mesh
from diffrep_jax.tasks import base
from diffrep_jax.tasks.counterfactual import Counterfactual
from diffrep_jax.tasks.manipulate import Classifier
from tests.tiny import tiny_config

RANDOM = np.random.default_rng(0)
SETTINGS = {"sampler": "heun", "steps": 2}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run's folder, in which codes are kept."""
    folder = tmp_path_factory.mktemp("run")
    configs.save(tiny_config(), folder)
    return folder


def run_task(name, tiny_run, workdir, paths=(), **settings):
    config = tiny_config()
    with config.unlocked():
        config.tasks[name].update(settings)
    method = build(config.method)
    variables = load_variables(tiny_run, method, make_mesh(devices=jax.local_devices()))
    numbers = base.build(name, config.tasks[name], dict(paths)).run(method, variables, config, workdir)
    return numbers, workdir / name


def levels(images):
    return np.asarray(images).astype(int)


@pytest.mark.parametrize("invert_steps", [0, 3])
def test_a_counterfactual_of_all_blocks_goes_from_one_reconstruction_to_the_other(tiny_run, tmp_path, invert_steps):
    settings = SETTINGS | {"invert_steps": invert_steps}
    _, reconstructed = run_task("reconstruct", tiny_run, tmp_path, num_images=6, **settings)
    _, folder = run_task("counterfactual", tiny_run, tmp_path, first="1", second="5", points=3, **settings)
    whole = levels(np.load(reconstructed / "arrays.npz")["reconstructions"])
    ways = levels(np.load(folder / "arrays.npz")["images"])
    assert ways.shape[:2] == (2, 3)
    for way, ends in zip(ways, ((1, 5), (5, 1)), strict=True):
        assert np.abs(way[0] - whole[ends[0]]).max() <= 1
        assert np.abs(way[-1] - whole[ends[1]]).max() <= 1
    assert np.abs(ways[0] - ways[1, ::-1]).max() <= 1
    found = json.loads((folder / "metrics.json").read_text())
    assert found["invert_evaluations"] == max(0, invert_steps - 1)  # karras: its last node is the image's


def counterfactual(ranges):
    settings = tiny_config().tasks.counterfactual.to_dict() | {"ranges": ranges}
    return Counterfactual(**settings)


def test_ranges_of_blocks_are_slices_of_the_code():
    ends = np.array([2, 3, 7, 8])
    found = counterfactual(((0, 1), (1, 2), (3, 1))).slices(ends)
    assert list(found.values()) == [slice(0, 2), slice(2, 7), slice(7, 8)]
    assert list(found) == ["block 0 of 4", "blocks 1-2 of 4", "block 3 of 4"]
    assert list(counterfactual(()).slices(ends).values()) == [slice(0, 8)]


@pytest.mark.parametrize("ranges", [((4, 1),), ((-1, 2),), ((0, 0),), ((2, 3),)])
def test_blocks_that_there_are_not_are_refused(ranges):
    with pytest.raises(UserError, match="this model has 4, numbered from 0"):
        counterfactual(ranges).slices(np.array([2, 3, 7, 8]))


@pytest.mark.parametrize("ranges", [(3, 4), ((1, 2, 3),), (("a", 1),)])
def test_ranges_that_are_no_pairs_are_refused(ranges):
    with pytest.raises(UserError, match=r"write \(\(first block, number of blocks\)"):
        counterfactual(ranges)


def test_moving_a_code_raises_the_logit_by_the_scale_alone():
    d = 9
    kernel = np.where(np.arange(d) % 2, RANDOM.normal(size=d), 0)
    classifier = Classifier("smile", kernel, 0.3, RANDOM.normal(size=d), RANDOM.uniform(0.5, 2, d), "test")
    z = RANDOM.normal(size=(5, d))
    for scale in (-0.7, 0.4):
        moved = classifier.moved(z, scale)
        expected = scale * np.sqrt(d) * np.linalg.norm(kernel)
        np.testing.assert_allclose(classifier.logits(moved) - classifier.logits(z), expected)
        np.testing.assert_array_equal(moved[:, kernel == 0], z[:, kernel == 0])


def test_manipulation_at_scale_0_is_the_reconstruction(tiny_run, workdir):
    _, reconstructed = run_task("reconstruct", tiny_run, workdir, num_images=3, **SETTINGS)
    settings = SETTINGS | {"num_images": 3, "scales": (-50.0, 0.0), "epochs": 2, "promask": 4, "lr": 1e-2}
    numbers, folder = run_task("manipulate", tiny_run, workdir, attribute="slant", batch_size=2, **settings)
    found = np.load(folder / "arrays.npz")
    whole = np.load(reconstructed / "arrays.npz")
    np.testing.assert_array_equal(found["inputs"], whole["images"])
    assert np.abs(levels(found["images"][1]) - levels(whole["reconstructions"])).max() <= 1
    assert np.abs(levels(found["images"][0]) - levels(whole["reconstructions"])).max() > 1
    classifier = np.load(folder / "classifier.npz")
    assert (classifier["kernel"] != 0).sum() == numbers["dimensions"] < 8
    with np.load(workdir / "encode" / "digits_test.npz") as test:
        logits = (test["codes"] - classifier["mean"]) / classifier["std"] @ classifier["kernel"] + classifier["bias"]
        slants = test["attributes"][:, 1]
    np.testing.assert_allclose(numbers["r"], np.corrcoef(logits, slants)[0, 1], atol=1e-6)


def test_the_head_of_the_probe_is_taken_where_there_is_one(tiny_run, workdir):
    run_task("probe", tiny_run, workdir, epochs=2)
    settings = SETTINGS | {"num_images": 2, "scales": (0.3,), "promask": 0}
    numbers, folder = run_task("manipulate", tiny_run, workdir, attribute="7", **settings)
    classifier = Classifier(**{name: value for name, value in np.load(folder / "classifier.npz").items()})
    assert str(classifier.name) == "7" and str(classifier.source) == "probe"
    with np.load(workdir / "encode" / "digits_test.npz") as test, np.load(workdir / "probe" / "classes.npz") as head:
        expected = test["codes"] @ head["kernel"][:, 7] + head["bias"][7]
        np.testing.assert_allclose(classifier.logits(test["codes"]), expected, atol=1e-4)
    assert 0 <= numbers["ap"] <= 1


def test_images_of_ones_own_may_be_changed(tiny_run, workdir, tmp_path):
    from PIL import Image

    for i in range(2):
        Image.fromarray(RANDOM.integers(0, 255, (12, 10), np.uint8)).save(tmp_path / f"{i}.png")
    settings = SETTINGS | {"scales": (0.3,), "epochs": 1}
    _, folder = run_task("manipulate", tiny_run, workdir, {"images": tmp_path}, attribute="ink", **settings)
    assert np.load(folder / "arrays.npz")["images"].shape == (1, 2, 8, 8, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute": "Smiling"}, "'Smiling'.*ink"),
        ({"attribute": "14"}, "'14'"),
        ({"promask": 9}, "promask 9 is above latent_dim=8"),
        ({"promask": -1}, "promask -1 is below 0"),
        ({"epochs": 0}, "epochs 0 must be at least 1"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"invert_steps": -1}, "invert_steps -1"),
    ],
)
def test_bad_settings_of_manipulation_are_refused(settings, message, tiny_run, workdir):
    with pytest.raises(UserError, match=message):
        run_task("manipulate", tiny_run, workdir, **SETTINGS, **settings)
