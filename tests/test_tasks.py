"""The tasks on a trained run: what they write agrees with what they say, alone and as hooks."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

import diffrep_jax
from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import build
from diffrep_jax.samplers import Sampling
from diffrep_jax.sharding import make_mesh
from diffrep_jax.tasks import base
from tests.task_runs import run_task
from tests.tiny import tiny_config


def test_reconstruct_reports_the_errors_of_the_arrays_it_writes(tiny_model, tmp_path):
    numbers, folder = run_task("reconstruct", tiny_model, tmp_path, num_images=10)
    arrays = np.load(folder / "arrays.npz")
    dataset = data.open_dataset("digits", split="test", image_size=8, channels=1)
    np.testing.assert_array_equal(arrays["images"], np.stack([dataset[i]["image"] for i in range(10)]))
    difference = (arrays["images"].astype(float) - arrays["reconstructions"].astype(float)) / 255
    assert numbers["mse"] == pytest.approx((difference**2).mean(), rel=1e-9)
    assert numbers["mse_of_mean_image"] == pytest.approx((arrays["images"] / 255).var(axis=0).mean(), rel=1e-9)
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved["mse"] == numbers["mse"] and saved["images"] == 10
    assert (saved["dataset"], saved["split"]) == ("digits", "test")
    assert (saved["sampler"], saved["steps"], saved["evaluations"]) == ("heun", 2, 3)
    picture = np.asarray(Image.open(folder / "grid.png"))
    assert picture.std() > 20  # not a grey square


def test_reconstructions_do_not_depend_on_the_batch_size(tiny_model, tmp_path):
    """Also with churn, whose noise goes by image; the last batch is short."""
    churn = {"num_images": 6, "sampling": {"churn_step_ratio": 0.33}}
    _, one = run_task("reconstruct", tiny_model, tmp_path / "a", batch_size=4, **churn)
    _, two = run_task("reconstruct", tiny_model, tmp_path / "b", batch_size=2, **churn)
    a, b = np.load(one / "arrays.npz"), np.load(two / "arrays.npz")
    np.testing.assert_allclose(a["codes"], b["codes"], rtol=1e-4, atol=1e-5)
    assert np.abs(a["reconstructions"].astype(int) - b["reconstructions"]).max() <= 1
    _, other = run_task(
        "reconstruct", tiny_model, tmp_path / "c", batch_size=4, **churn | {"sampling": churn["sampling"] | {"seed": 1}}
    )
    assert np.abs(a["reconstructions"].astype(int) - np.load(other / "arrays.npz")["reconstructions"]).max() > 1


def test_interpolation_runs_from_one_reconstruction_to_the_other(tiny_model, tmp_path):
    _, reconstructed = run_task("reconstruct", tiny_model, tmp_path, num_images=6)
    _, folder = run_task("interpolate", tiny_model, tmp_path, first="1", second="5", points=4, gif=True)
    whole, strip = np.load(reconstructed / "arrays.npz"), np.load(folder / "arrays.npz")
    for point, index in ((0, 1), (-1, 5)):
        assert np.abs(strip["images"][point].astype(int) - whole["reconstructions"][index]).max() <= 1
    np.testing.assert_allclose(np.diff(strip["codes"], axis=0).std(0), 0, atol=1e-5)  # equal steps
    distinct = len({image.tobytes() for image in strip["images"]})  # Pillow joins frames that are equal
    assert Image.open(folder / "interpolation.gif").n_frames >= distinct
    assert Image.open(folder / "strip.png").width > 6 * 64


def test_interpolate_takes_image_files(tiny_model, tmp_path):
    dataset = data.open_dataset("digits", split="test", image_size=8, channels=1)
    path = tmp_path / "with space é.png"
    Image.fromarray(dataset[3]["image"][:, :, 0]).save(path)
    _, by_file = run_task("interpolate", tiny_model, tmp_path / "file", first=str(path), second="5", points=4)
    _, by_index = run_task("interpolate", tiny_model, tmp_path / "index", first="3", second="5", points=4)
    a, b = np.load(by_file / "arrays.npz"), np.load(by_index / "arrays.npz")
    np.testing.assert_array_equal(a["images"], b["images"])


@pytest.mark.parametrize("field", ["first", "second"])
def test_an_entry_that_cannot_be_read_is_named_with_its_field(field, tiny_model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"no image")
    ends = {"first": "0", "second": "2"} | {field: "1"}
    with pytest.raises(UserError, match=f"tasks.interpolate.{field}=1: .*b.png"):
        run_task("interpolate", tiny_model, tmp_path / "out", {"images": folder}, **ends)
    assert not (tmp_path / "out").exists()


def test_more_images_than_there_are_means_all_of_them(tiny_model, tmp_path, caplog):
    numbers, folder = run_task(
        "reconstruct", tiny_model, tmp_path, num_images=1000, batch_size=99, sampling={"sampler": "euler"}
    )
    assert json.loads((folder / "metrics.json").read_text())["images"] == 297
    assert "has only 297 images" in caplog.text


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("reconstruct", {"num_images": 0}, "num_images 0"),
        ("reconstruct", {"split": "tset"}, "tset"),
        ("reconstruct", {"sampling": {"sampler": "huen"}}, "Did you mean 'heun'"),
        ("reconstruct", {"sampling": {"grid": "karas"}}, "Did you mean 'karras'"),
        ("reconstruct", {"sampling": {"churn_step_ratio": 1.0}}, "1.0 is outside"),
        ("reconstruct", {"sampling": {"steps": 0}}, "steps 0"),
        ("reconstruct", {"batch_size": 0}, "tasks.reconstruct.batch_size is 0"),
        ("interpolate", {"points": 1}, "points 1"),
        ("interpolate", {"first": "nowhere.png"}, "tasks.interpolate.first=nowhere.png: No image file nowhere.png"),
        ("interpolate", {"second": "297"}, "tasks.interpolate.second=297: There is no image 297"),
        ("counterfactual", {"second": ""}, "tasks.counterfactual.second: '' names no image"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(task, settings, message, tiny_model, tmp_path):
    with pytest.raises(UserError, match=message):
        run_task(task, tiny_model, tmp_path, **settings)
    assert not list(tmp_path.rglob("*.png"))


def test_unknown_tasks_and_fields_are_refused():
    config = tiny_config()
    with pytest.raises(UserError, match="Did you mean 'reconstruct'"):
        base.build("reconstrct", config.tasks.reconstruct, {})
    with config.unlocked(), pytest.raises(UserError, match="'stepz'.*config.tasks.reconstruct.*Did you mean|stepz"):
        config.tasks.reconstruct.stepz = 3
        base.build("reconstruct", config.tasks.reconstruct, {})


def test_a_path_that_a_task_has_no_use_for_is_refused():
    with pytest.raises(UserError, match="--checkpoint x.pt is of no use to --task=reconstruct"):
        base.build("reconstruct", tiny_config().tasks.reconstruct, {"checkpoint": pathlib.Path("x.pt")})


def test_every_task_file_has_the_protocol():
    for name in base.names():
        task = base.build(name, tiny_config().tasks[name], {})
        assert callable(task.run) and isinstance(task.needs_run, bool)


class TestLoad:
    """The Python interface: `diffrep_jax.load(run)`."""

    @pytest.fixture
    def ae(self, tiny_model):
        return tiny_model

    @pytest.fixture(scope="class")
    def pixels(self):
        dataset = data.open_dataset("digits", split="test", image_size=8, channels=1)
        return np.stack([dataset[i]["image"] for i in range(4)])

    def test_uint8_and_float_images_give_one_code(self, ae, pixels):
        z = ae.encode(pixels)
        assert (z.shape, z.dtype, ae.latent_dim, ae.image_size) == ((4, 8), np.float32, 8, 8)
        np.testing.assert_array_equal(ae.encode(pixels / np.float32(127.5) - 1), z)
        assert np.abs(z[0] - z[1]).max() > 1e-4

    def test_decode_is_the_reconstruct_task(self, ae, pixels, tmp_path):
        _, folder = run_task("reconstruct", ae, tmp_path, num_images=4)
        out = ae.decode(ae.encode(pixels), sampler="heun", steps=2)
        assert out.dtype == np.float32 and out.min() >= -1 and out.max() <= 1
        expected = np.load(folder / "arrays.npz")["reconstructions"]
        assert np.abs((out + 1) * 127.5 - expected).max() <= 1

    def test_endpoint_and_code_are_independent(self, ae, pixels):
        z = ae.encode(pixels)
        xT = ae.endpoint(z)
        np.testing.assert_array_equal(ae.decode(z, xT, steps=2), ae.decode(z, steps=2))
        assert np.abs(ae.decode(z, xT[::-1], steps=2) - ae.decode(z, steps=2)).max() > 1e-3

    def test_noise_may_be_given(self, ae, pixels):
        z = ae.encode(pixels)
        noise = np.zeros((4, 2, 8, 8, 1), np.float32)
        quiet = ae.decode(z, steps=2, churn_step_ratio=0.33, noise=noise)
        assert np.abs(quiet - ae.decode(z, steps=2, churn_step_ratio=0.33)).max() > 1e-4
        loud = noise.copy()
        loud[1] = 3 * np.random.default_rng(0).standard_normal(noise.shape[1:])
        moved = np.abs(ae.decode(z, steps=2, churn_step_ratio=0.33, noise=loud) - quiet).max((1, 2, 3))
        assert moved[1] > 1e-3 and moved[0] == moved[2] == moved[3] == 0  # noise belongs to its image

    def test_denoise_is_unclipped_and_ends_at_the_image(self, ae, pixels):
        """At t_min the denoiser is close to its input, whatever the weights: c_skip is near 1 there."""
        x = pixels / np.float32(127.5) - 1
        z = ae.encode(pixels)
        out = ae.denoise(3 * x, 1e-4, z, ae.endpoint(z))
        np.testing.assert_allclose(out, 3 * x, atol=0.05)

    def test_live_and_averaged_weights_differ(self, ae, tiny_run, pixels):
        live = diffrep_jax.load(tiny_run, weights="live").encode(pixels)
        assert np.abs(live - ae.encode(pixels)).max() > 1e-5
        np.testing.assert_array_equal(diffrep_jax.load(tiny_run, weights="ema").encode(pixels), ae.encode(pixels))

    def test_what_does_not_fit_is_refused_by_name(self, ae, pixels, tiny_run, tmp_path):
        z = np.zeros((2, 8), np.float32)
        x = np.zeros((2, 8, 8, 1), np.float32)
        for call, message in [
            (lambda: ae.encode(pixels[0]), r"images has the shape \(8, 8, 1\).*\[n, 8, 8, 1\]"),
            (lambda: ae.encode(pixels[:0]), "n >= 1"),
            (lambda: ae.encode(pixels.astype(np.float32)), r"images lies in \[0, 255\]"),
            (lambda: ae.encode(pixels.astype(np.int64)), "int64"),
            (lambda: ae.encode(np.full((1, 8, 8, 1), np.nan)), "nan"),
            (lambda: ae.encode(pixels, noise=z), r"noise has the shape \(2, 8\)"),
            (lambda: ae.endpoint(z[:, :4]), r"z has the shape \(2, 4\)"),
            (lambda: ae.decode(z, x[:1]), r"x_T has the shape \(1, 8, 8, 1\)"),
            (lambda: ae.decode(z, steps=3, noise=np.zeros((2, 2, 8, 8, 1))), "noise has the shape"),
            (lambda: ae.decode(z, sampler="hun"), "Did you mean 'heun'"),
            (lambda: ae.decode(z, step=3), "'step'. Did you mean 'steps'"),
            (lambda: ae.denoise(x, 1.5, z, x), "1.5 .*outside"),
            (lambda: diffrep_jax.load(tmp_path), "No config.json"),
            (lambda: diffrep_jax.load(tiny_run, weights="best"), "'best'"),
        ]:
            with pytest.raises(UserError, match=message):
                call()

    def test_a_stochastic_encoder_answers_its_mean_or_a_draw(self):
        config = tiny_config()
        with config.unlocked():
            config.method.stochastic_encoder = True
        method = build(config.method)
        variables = jax.device_put(method.init(jax.random.key(0), {"image": np.zeros((1, 8, 8, 1))}))
        model = Model(method, variables, make_mesh(), Sampling())
        x = np.zeros((4, 8, 8, 1), np.float32)
        noise = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
        mean, up, down = model.encode(x), model.encode(x, noise), model.encode(x, -noise)
        np.testing.assert_allclose((up + down) / 2, mean, atol=1e-5)
        sigma = (up - mean) / noise
        assert sigma.min() > 0.01  # exp(s) + 0.01
        np.testing.assert_allclose(sigma[0], sigma[1], rtol=1e-3)
