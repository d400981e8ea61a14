"""The task `sample`: images from noise, or from a prior's codes; what decodes a sampled code; whose prior it is."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffrep_jax.train.checkpoint import load_variables
from PIL import Image

from configs import ddpm_digits, latent_prior_digits, pdae_digits
from diffrep_jax import config as configs
from diffrep_jax.data.datasets import codes
from diffrep_jax.errors import UserError
from diffrep_jax.inference import Inference
from diffrep_jax.methods.base import AutoEncoder, build
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.sharding import make_mesh
from diffrep_jax.train.loop import train
from tests.test_tasks import run_task


def small(module, **data):
    """A digits config whose networks compile in seconds; `data` replaces fields of its section."""
    config = module.get_config().unlock()
    config.data.update(data)
    if "unet" in config.method:
        config.method.unet.update(width=8, mult=(1,), attention=())
    if "encoder" in config.method:
        config.method.update(latent_dim=6)
        config.method.encoder.update(widths=(8,), attention=())
    if "mlp" in config.method:
        config.method.mlp.update(width=16, layers=3, time_width=8)
    config.train.update(total_steps=2, batch_size=8, log_every=1)
    settings = {"every_steps": 0, "steps": 3, "num_images": 6, "batch_size": 6, "grid_images": 5, "eta": 0.0}
    config.tasks.sample.update(settings, prior_steps=3)
    return config.lock()


@pytest.fixture(scope="module")
def ddpm_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ddpm")
    config = small(ddpm_digits, image_size=8)
    train(build(config.method), config, workdir, None)
    return workdir


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """(a DBAE's run with its codes, the run of a prior of them)."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(tiny_run, folder / "ae")
    run_task("encode", folder / "ae", folder / "ae", num_images=50)
    config = small(latent_prior_digits, channels=8)
    train(build(config.method), config, folder / "prior", folder / "ae" / "encode")
    return folder / "ae", folder / "prior"


def sample(workdir, out, **settings):
    """The arrays that the task writes, and its metrics.json."""
    _, folder = run_task("sample", workdir, out, **settings)
    assert np.asarray(Image.open(folder / "grid.png")).ndim == 3
    with np.load(folder / "samples.npz") as arrays:
        return dict(arrays), json.loads((folder / "metrics.json").read_text())


SHORT = {"num_images": 6, "batch_size": 6, "grid_images": 5, "steps": 3, "prior_steps": 3}


# --- what is written


def test_a_method_without_a_code_samples_from_noise_alone(ddpm_run, tmp_path):
    """Image i depends on the seed and on i alone, also with fresh noise in every step: ancestral sampling."""
    whole, told = sample(ddpm_run, tmp_path / "whole", eta=1.0)
    assert whole.keys() == {"images"} and whole["images"].shape == (6, 8, 8, 1) and whole["images"].dtype == np.uint8
    assert (told["images"], told["prior"], told["sampler"], told["eta"]) == (6, "", "exponential", 1.0)
    assert told["evaluations"] == 4  # ddim_range: range(0, 1000, 333) has 4 steps
    parts, _ = sample(ddpm_run, tmp_path / "parts", eta=1.0, batch_size=3)
    assert np.abs(whole["images"].astype(int) - parts["images"]).max() <= 1
    other, _ = sample(ddpm_run, tmp_path / "other", eta=1.0, seed=1)
    assert np.abs(whole["images"].astype(int) - other["images"]).max() > 10


def test_an_auto_encoder_decodes_the_codes_of_its_prior(runs, tmp_path):
    ae, prior = runs
    arrays, told = sample(ae, tmp_path, prior=str(prior), **SHORT)
    assert arrays["images"].shape == (6, 8, 8, 1) and arrays["codes"].shape == (6, 8)
    assert told["prior"] == str(prior)
    assert (told["evaluations"], told["prior_evaluations"]) == (3, 4)
    config = configs.load_run(ae)
    method, mesh = build(config.method), make_mesh()
    model = Inference(method, load_variables(ae, method, mesh), mesh)
    decoded = model.decode(arrays["codes"], model.endpoint(arrays["codes"]), sampler="euler", grid="karras", steps=3)
    assert np.abs((decoded + 1) * 127.5 - arrays["images"]).max() <= 1
    parts, _ = sample(ae, tmp_path / "parts", prior=str(prior), **SHORT | {"batch_size": 3})
    np.testing.assert_allclose(parts["codes"], arrays["codes"], rtol=1e-3, atol=1e-4)
    assert np.abs(parts["images"].astype(int) - arrays["images"]).max() <= 1


def test_codes_are_brought_to_the_scale_that_the_prior_was_trained_at(runs, tmp_path):
    ae, prior = runs
    plain, _ = sample(ae, tmp_path / "plain", prior=str(prior), **SHORT)
    scale = codes.read_scale(prior / codes.SCALE_FILE)
    shutil.copytree(prior, tmp_path / "prior")
    mean, std = np.arange(8), np.linspace(0, 2, 8)
    dataclasses.replace(scale, mean=mean, std=std).save(tmp_path / "prior" / codes.SCALE_FILE)
    moved, _ = sample(ae, tmp_path / "moved", prior=str(tmp_path / "prior"), **SHORT)
    np.testing.assert_allclose(
        (plain["codes"] - scale.mean) / scale.std * std, moved["codes"] - mean, rtol=1e-3, atol=1e-3
    )


# --- whose prior


def test_an_imported_prior_takes_the_scale_that_encode_has_found(runs, tmp_path):
    ae, prior = runs
    expected, _ = sample(ae, tmp_path / "a", prior=str(prior), **SHORT)
    shutil.copytree(ae, tmp_path / "ae")
    shutil.copytree(prior, tmp_path / "prior")
    (tmp_path / "prior" / codes.SCALE_FILE).unlink()
    run_sample = lambda: run_task("sample", tmp_path / "ae", tmp_path / "ae", prior=str(tmp_path / "prior"), **SHORT)  # noqa: E731
    _, folder = run_sample()
    np.testing.assert_array_equal(np.load(folder / "samples.npz")["codes"], expected["codes"])
    shutil.rmtree(tmp_path / "ae" / "encode")
    with pytest.raises(UserError, match="imported without the mean and std.*--task=encode.*split=train"):
        run_sample()


def test_a_prior_of_another_networks_codes_is_refused(runs, tmp_path, caplog):
    ae, prior = runs
    shutil.copytree(prior, tmp_path / "prior")
    scale, file = codes.read_scale(prior / codes.SCALE_FILE), tmp_path / "prior" / codes.SCALE_FILE
    dataclasses.replace(scale, witness=1.01 * scale.witness).save(file)
    with pytest.raises(UserError, match="another auto-encoder's codes, or .* was trained since"):
        run_task("sample", ae, tmp_path, prior=str(tmp_path / "prior"), **SHORT)
    assert not (tmp_path / "sample").exists()
    dataclasses.replace(scale, witness=None).save(file)
    run_task("sample", ae, tmp_path, prior=str(tmp_path / "prior"), **SHORT)
    assert "does not tell which auto-encoder" in caplog.text


def test_what_cannot_be_sampled_is_refused(runs, ddpm_run, tmp_path):
    ae, prior = runs
    shutil.copytree(prior, tmp_path / "wide")
    config = configs.load_run(prior).unlock()
    config.data.channels = config.method.channels = 9
    configs.save(config, tmp_path / "wide")
    for workdir, settings, message in [
        (ae, {}, "needs codes.*--task=encode.*latent_prior_FILE.*tasks.sample.prior=PRIOR"),
        (ae, {"prior": str(tmp_path / "nowhere")}, "nowhere is no run"),
        (ae, {"prior": str(ddpm_run)}, "is a ddpm run, no prior"),
        (ae, {"prior": str(ae)}, "is a dbae run, no prior"),
        (ae, {"prior": str(tmp_path / "wide")}, "codes of 9 dimensions, .* takes 8"),
        (ddpm_run, {"prior": str(prior)}, "is of no use: the model in .* has no codes"),
        (prior, {}, "makes codes, no images: sample with its auto-encoder's --workdir"),
        (ae, {"num_images": 0}, "num_images 0"),
        (ae, {"grid_images": 0}, "grid_images 0"),
        (ae, {"prior_steps": 0}, "steps 0"),
        (ae, {"prior_sampler": "huen"}, "Did you mean 'heun'"),
        (ae, {"prior_eta": -1.0}, "eta -1.0"),
        (ae, {"prior": str(prior), "prior_grid": "karas"}, "Did you mean 'karras'"),
    ]:
        with pytest.raises(UserError, match=message):
            run_task("sample", workdir, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


# --- how a sampled code is decoded


@pytest.fixture(scope="module")
def pdae():
    """(method, variables without a zero in them)."""
    method = build(small(pdae_digits, image_size=8).method)
    variables = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})
    noise = np.random.default_rng(0)
    return method, jax.tree.map(lambda x: x + 0.3 * noise.standard_normal(x.shape).astype(np.float32), variables)


@pytest.mark.parametrize("t, guided", [(999.0, True), (300.0, True), (299.0, False), (100.0, False)])
def test_pdae_leaves_its_shift_out_of_the_last_steps_of_a_sampled_code(t, guided, pdae):
    """Below 30 % of the steps D is the frozen DDPM's; above, and always for an image's code, it is not."""
    method, variables = pdae
    x, z = np.random.default_rng(1).standard_normal((2, 8, 8, 1)), jnp.ones((2, 6))
    shared = ("image_size", "channels", "dtype", "remat", "unet")
    base = build({"name": "ddpm"} | {name: getattr(method, name) for name in shared})
    plain = base.denoiser({"params": {"unet": variables["params"]["unet"]}})(x, jnp.float32(t))
    sampled = method.denoiser_of_sample(variables, z, x)(x, jnp.float32(t))
    inferred = method.denoiser(variables, z, x)(x, jnp.float32(t))
    scale = np.abs(plain).max()
    assert np.abs(inferred - plain).max() > 1e-3 * scale
    np.testing.assert_allclose(sampled, inferred if guided else plain, atol=1e-5 * scale)


@dataclasses.dataclass(frozen=True)
class Told(AutoEncoder):
    """Decodes an image's code to 0.5 and a sampled one to -0.5."""

    image_size, channels, latent_dim, process = 2, 1, 1, DiscreteVP()

    def denoiser(self, variables, z, xT):
        return lambda x, t: jnp.full_like(x, 0.5)

    def denoiser_of_sample(self, variables, z, xT):
        return lambda x, t: jnp.full_like(x, -0.5)


def test_decoding_asks_for_the_denoiser_of_samples():
    model = Inference(Told(), {"params": {}}, make_mesh())
    z, xT = np.zeros((3, 1), np.float32), np.zeros((3, 2, 2, 1), np.float32)
    for sampled, expected in ((False, 0.5), (True, -0.5)):
        out = model.decode(z, xT, sampler="exponential", grid="ddim_range", steps=2, sampled=sampled)
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_the_noise_of_a_code_is_not_that_of_its_image(pdae):
    """The prior of a network that answers 0 returns z_T up to a factor: nothing of it is in the image's x_T."""
    method, variables = pdae
    mesh = make_mesh()
    prior = build(small(latent_prior_digits, channels=6).method)
    zeros = jax.tree.map(jnp.zeros_like, prior.init(jax.random.key(0), {"image": jnp.zeros((1, 1, 1, 6))}))
    settings = {"sampler": "exponential", "grid": "ddim_range", "steps": 2}
    z = Inference(prior, zeros, mesh).generate(1000, **settings).reshape(1000, -1)
    xT = Inference(method, jax.device_put(variables), mesh).endpoint(z).reshape(1000, -1)
    correlation = np.corrcoef(np.hstack([z, xT[:, :8]]).T)[:6, 6:]
    assert np.abs(correlation).max() < 0.15
