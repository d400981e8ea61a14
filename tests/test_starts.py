"""What decoding starts from, as it is shown: x_T, a bridge's noise large enough to be seen, a first step's defect."""

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.starts import starts
from tests.coded_models import opened, small_config
from tests.task_runs import run_task

LEAPFROG = {"sampler": "leapfrog", "eta": 0.0, "steps": 3}


def test_of_a_bridge_it_is_x_T_and_the_noise_at_a_deviation_of_1(tiny_model):
    z = np.zeros((2, tiny_model.auto_encoder.latent_dim), np.float32)
    noise = np.random.default_rng(0).normal(size=(2, 8, 8, 1)) * np.array([0.01, 0.0]).reshape(2, 1, 1, 1)
    shown = starts(tiny_model, Encoded(z, noise))
    assert list(shown) == ["x_T", "noise, enlarged"]
    np.testing.assert_array_equal(shown["x_T"], tiny_model.endpoint(z))
    np.testing.assert_allclose(shown["noise, enlarged"].std((1, 2, 3)), [1, 0], rtol=1e-12)
    np.testing.assert_allclose(np.corrcoef(shown["noise, enlarged"][0].ravel(), noise[0].ravel())[0, 1], 1)
    assert list(starts(tiny_model, Encoded(z))) == ["x_T"]


def test_of_noise_it_is_the_inferred_x_T_and_of_a_reversible_sampler_the_defect_too():
    model = opened(small_config("pdae"))
    code = np.random.default_rng(0).normal(size=(2, 8, 8, 2 * model.channels))
    z = np.zeros((2, model.latent_dim), np.float32)
    shown = starts(model, Encoded(z, code))
    assert list(shown) == ["x_T, inferred", "defect, enlarged"]
    np.testing.assert_array_equal(shown["x_T, inferred"], code[..., : model.channels])
    drawn = starts(model, Encoded(z), numbers=3)["x_T"]
    np.testing.assert_array_equal(drawn, model.endpoint(z, 3))


@pytest.mark.parametrize("sampling", [LEAPFROG, {"sampler": "exponential", "steps": 3}])
def test_the_picture_of_reconstructions_has_a_row_for_each(tiny_model, tmp_path, sampling):
    _, folder = run_task("reconstruct", tiny_model, tmp_path, sampling=sampling, num_images=4, invert_steps=3)
    rows = 4 + (sampling is LEAPFROG)  # input, x_T, noise, reconstruction
    picture = Image.open(folder / "grid.png")
    _, without = run_task("reconstruct", tiny_model, tmp_path / "z", num_images=4)
    assert picture.height / Image.open(without / "grid.png").height == pytest.approx(rows / 3, rel=0.05)
    assert np.asarray(picture).std() > 10
