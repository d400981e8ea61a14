"""NaN and infinity never leave as pictures or numbers: what they are in is named."""

import dataclasses
import logging

import jax
import numpy as np
import pytest

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import NotFinite, UserError
from diffrep_jax.methods.base import build
from diffrep_jax.metrics import disentanglement, fid, image, probe
from diffrep_jax.runs.layout import Run
from launch.hooks import task_hooks
from tests.tiny import start, tiny_config

BAD = [np.nan, np.inf, -np.inf]


def images(value, where=2):
    pixels = np.full((4, 16, 16, 1), 0.5, np.float32)
    pixels[where, 3, 5, 0] = value
    return pixels


@pytest.mark.parametrize("value", BAD)
def test_pictures_are_not_made_of_what_is_no_number(value):
    with pytest.raises(NotFinite, match=r"Image 2 of 4 \(from 0 on\)"):
        to_uint8(images(value))
    assert (to_uint8(images(1e30))[2, 3, 5] == 255).all()  # far off is a number


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("measure", [image.mse, image.psnr, image.ssim, image.ssim_official])
def test_measures_of_images_name_the_first_bad_one(measure, value):
    good = images(0.25)
    with pytest.raises(NotFinite, match="Original image 1 of 4"):
        measure(images(value, 1), good)
    with pytest.raises(NotFinite, match="Image 3 of 4"):
        measure(good, images(value, 3))


@pytest.mark.parametrize("value", BAD)
def test_measures_of_codes_and_features_name_the_first_bad_one(value):
    rows, labels = np.random.default_rng(0).standard_normal((20, 3)), np.tile([[0, 1], [1, 0]], (10, 1))
    bad = rows.copy()
    bad[7, 1] = value
    for call in (
        lambda: probe.average_precision(bad[:, :2], labels),
        lambda: probe.pearson(bad, rows),
        lambda: probe.pearson(rows, bad),
        lambda: probe.squared_error(bad, rows),
        lambda: disentanglement.auroc(bad, labels),
        lambda: disentanglement.importances(bad, labels, rows, labels, True),
        lambda: fid.Moments.empty(3).update(bad),
    ):
        with pytest.raises(NotFinite, match="7 of 20"):
            call()


def test_a_model_with_a_damaged_weight_answers_nothing(tiny_model):
    """One weight of the network that the question needs is NaN."""

    def broken(network):
        params = dict(tiny_model.variables["params"])
        leaves, tree = jax.tree.flatten(params[network])
        params[network] = jax.tree.unflatten(tree, [leaves[0] * np.nan, *leaves[1:]])
        return dataclasses.replace(tiny_model, variables=tiny_model.variables | {"params": params})

    pixels = np.zeros((3, 8, 8, 1), np.uint8)
    z = tiny_model.encode(pixels)
    with pytest.raises(NotFinite, match="The code of image 0 of 3"):
        broken("encoder").encode(pixels)
    with pytest.raises(NotFinite, match="The x_T of image 0 of 3"):
        broken("generator").endpoint(z)
    with pytest.raises(NotFinite, match="Image 0 of 3.*damaged weights"):
        broken("unet").decode(z)
    z = np.array(z)
    z[1, 4] = np.inf
    with pytest.raises(UserError, match="of image 1 of 3"):
        tiny_model.endpoint(z)


def test_a_preview_of_what_is_no_number_is_left_out_and_training_goes_on(tmp_path, caplog, monkeypatch):
    config = tiny_config(total_steps=3)
    with config.unlocked():
        config.tasks.reconstruct.every_steps = 2
    method, run = build(config.method), Run.at(tmp_path, config)
    [hook] = task_hooks(method, run, None)
    monkeypatch.setattr("diffrep_jax.inference.model.Model.decode", lambda *_, **__: np.full((8, 8, 8, 1), np.nan))
    with caplog.at_level(logging.WARNING):
        state = start(config, tmp_path, [hook], method)
    assert int(state.step) == 3 and "No preview of reconstruct at step 2: Image 0 of 8" in caplog.text
