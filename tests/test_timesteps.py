"""The task `timesteps`: denoisers with known errors give them; losses are those of training; a DDPM has no code."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.starts import starts
from diffrep_jax.methods.ddpm import DDPM
from diffrep_jax.methods.noise_coded import NoiseCoded
from diffrep_jax.processes.base import per_image
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base, timesteps
from tests.coded_models import opened, small_config
from tests.tiny import tiny_config


class Known(Model):
    """Its code is an image's number; D is wrong by 0.1, with another's code by 0.2, without one by 0.4."""

    def encode(self, images, noise=None, how=None, numbers=0, **changes):
        kept.append(images)
        return np.repeat(np.arange(len(images), dtype=np.float32)[:, None], 16, axis=1)

    def denoise(self, x_t, t, z, x_T):
        error = 0.4 if z is None else np.where(z[:, 0] == np.arange(4), 0.1, 0.2)
        return kept[-1] + np.float32(np.reshape(error, (-1, 1, 1, 1)))


kept = []


def run(model, config, out, **settings):
    with config.unlocked():
        config.tasks.timesteps.update({"num_images": 4, "batch_size": 4, "points": 8} | settings)
    numbers = base.build("timesteps", config.tasks.timesteps, {}).run(model, Run.at(out, config))
    return numbers, json.loads((out / "timesteps" / "metrics.json").read_text())


def test_known_errors_are_what_is_written(tmp_path):
    config = small_config("diti")
    model = opened(config)
    _, written = run(Known(model.method, model.variables, model.mesh, model.sampling), config, tmp_path)
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1 - betas)
    for row in written["times"]:
        t = int(row["t"])
        snr = alpha_bar[t] / (1 - alpha_bar[t])
        before = alpha_bar[t - 1]
        share = np.sqrt(before) * betas[t] / (1 - alpha_bar[t])
        for way, error in (("own", 0.1), ("shuffled", 0.2), ("none", 0.4)):
            np.testing.assert_allclose(row[f"eps_{way}"], error * np.sqrt(snr), rtol=1e-2, atol=2e-4)
            np.testing.assert_allclose(row[f"loss_{way}"], snr**0.1 / (1 + snr) * snr * error**2, rtol=2e-3)
            np.testing.assert_allclose(row[f"gap_{way}"], (share * error) ** 2, rtol=2e-3)
    assert [row["t"] for row in written["times"]] == [62, 187, 312, 437, 562, 687, 812, 937]
    assert [row["block"] for row in written["times"]] == list(range(8))  # of 125 steps each
    assert [block["first_t"] for block in written["blocks"]] == [row["t"] for row in written["times"]]
    for name in ("loss", "eps", "mse", "denoised"):
        assert np.asarray(Image.open(tmp_path / "timesteps" / f"{name}.png")).std() > 5


@pytest.mark.parametrize("name", ["diffae", "dbae"])
def test_the_loss_with_the_own_code_is_that_of_training(name, tmp_path):
    config = tiny_config() if name == "dbae" else small_config(name)
    model = opened(config)
    _, written = run(model, config, tmp_path, points=2)
    assert written["loss_own"] != written["loss_shuffled"] != written["loss_none"]
    assert ("gap_own" in written) == ("gap_own" in written["times"][0]) == (name != "dbae")  # it has no steps
    task = base.build("timesteps", config.tasks.timesteps, {})
    x0 = task._images(Run.at(tmp_path, config))
    for i, row in enumerate(written["times"]):
        rngs = [np.random.default_rng([0, number, i]) for number in range(4)]
        eps = np.stack([rng.standard_normal(x0.shape[1:], np.float32) for rng in rngs])
        t = jnp.full(4, row["t"], jnp.float32)
        loss = model.method.loss_at(model.variables, x0, t, eps)
        np.testing.assert_allclose(row["loss_own"], np.mean(loss[0] if name == "dbae" else loss), rtol=1e-3)


def test_without_a_code_pdae_is_its_ddpm():
    pdae, ddpm = opened(small_config("pdae")), opened(small_config("ddpm"))
    variables = {"params": {"unet": pdae.variables["params"]["unet"]}, "batch_stats": {}}
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    t = jnp.full(2, 300.0)
    bare = ddpm.method.denoiser(variables)(x, t)
    np.testing.assert_allclose(pdae.denoise(x, 300, None, x), bare, rtol=1e-4, atol=1e-4)
    assert np.abs(pdae.denoise(x, 300, np.zeros((2, 16)), x) - bare).max() > 1e-2  # G(0) is not 0


def test_a_ddpm_has_one_curve(tmp_path):
    config = small_config("ddpm")
    model = opened(config)
    numbers, _ = run(model, config, tmp_path, points=2)
    assert sorted(numbers) == ["eps_own", "gap_own", "loss_own", "mse_own"]


def test_the_images_are_counted_and_their_mean_is_what_mse_is_held_against(tmp_path):
    """Half the mean square of the difference of two of them, drawn with replacement, is the square to their mean."""
    config = small_config("ddpm")
    model = opened(config)
    _, written = run(model, config, tmp_path, points=1, num_images=10_000)
    x0 = base.build("timesteps", config.tasks.timesteps, {})._images(Run.at(tmp_path, config)).astype(np.float64)
    assert written["images"] == len(x0) < 10_000
    pairs = (x0[:, None] - x0[None]) ** 2
    np.testing.assert_allclose(written["mse_mean_image"], pairs.mean() / 2, rtol=1e-6)


def test_one_image_that_can_be_read_has_no_other_to_swap_codes_with(tmp_path, monkeypatch):
    for i in range(6):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"no picture")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    config = small_config("pdae")
    with config.unlocked():
        config.data.update(name="folder", max_bad_fraction=0.5)
    with pytest.raises(UserError, match="1 of the first 2 images of split 'all' can be read.*num_images"):
        run(opened(config), config, tmp_path / "out", num_images=2, split="all")


class OfNormalPixels(DDPM):
    """The exact eps_hat for pixels of N(0, 0.2^2)."""

    def predict(self, variables, x, t, keys=None):
        _, b, c = (per_image(k, x) for k in self.process.coefficients(t))
        return x * c / ((0.2 * b) ** 2 + c**2)


def test_an_image_of_a_ddpm_comes_back_from_its_x_T_alone():
    """The ODE keeps x_t / sqrt(0.04 b^2 + c^2), so that x_T is 5 x_0."""
    model = opened(small_config("ddpm"))
    method = OfNormalPixels(**{f.name: getattr(model.method, f.name) for f in dataclasses.fields(DDPM)})
    model = dataclasses.replace(model, method=method)
    x0 = 0.2 * np.random.default_rng(0).normal(size=(4, 8, 8, 1)).clip(-2, 2).astype(np.float32)
    encoded = model.encoded(x0, invert_steps=200)
    assert encoded.z.shape == (4, 0) and isinstance(model.noise_coded.method, NoiseCoded)
    np.testing.assert_allclose(encoded.stochastic_code, 5 * x0, atol=0.2)
    np.testing.assert_allclose(model.decode(encoded, steps=200), x0, rtol=0.08, atol=1e-3)
    with pytest.raises(UserError, match="run has no codes.*invert_steps above 0"):
        model.encoded(x0)
    (start,) = starts(model, encoded).items()
    assert start[0] == "x_T, inferred"
    np.testing.assert_array_equal(start[1], encoded.stochastic_code)


def test_a_row_of_the_picture_says_whose_code_it_has(tiny_model):
    assert list(timesteps._names(tiny_model).values()) == ["own code", "another's code, own x_T", "no code, own x_T"]
    assert timesteps._names(opened(small_config("pdae")))["none"] == "no code"


@pytest.mark.parametrize(("settings", "message"), [({"num_images": 1}, "num_images is 1"), ({"points": 0}, "points")])
def test_bad_settings_are_refused(settings, message, tmp_path):
    config = small_config("pdae")
    with pytest.raises(UserError, match=message):
        run(None, config, tmp_path, **settings)
