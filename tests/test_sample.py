"""The task `sample`: images from noise, or from a prior's codes; what decodes a sampled code; whose prior it is."""

import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import ddpm_digits, latent_prior_digits, pdae_digits
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods.base import AutoEncoder, build
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.runs import checkpoint, weights
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.samplers import Sampling
from diffrep_jax.sharding import make_mesh
from diffrep_jax.train.loop import train
from diffrep_jax.train.state import imported_state
from tests.task_runs import run_task


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
    config.sampling.update(steps=3, eta=0.0)
    config.tasks.sample.update(num_images=6, batch_size=6, grid_images=5)
    return config.lock()


@pytest.fixture(scope="module")
def ddpm_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("ddpm")
    config = small(ddpm_digits, image_size=8)
    train(build(config.method), Run.at(workdir, config), None)
    return workdir


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """(a DBAE's run with its codes, the run of a prior of them)."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(tiny_run, folder / "ae")
    run_task("encode", folder / "ae", folder / "ae", num_images=50)
    config = small(latent_prior_digits, channels=8)
    train(build(config.method), Run.at(folder / "prior", config), folder / "ae" / "encode")
    return folder / "ae", folder / "prior"


def prior_with(prior, folder, **statistics):
    """A prior's run as `prior`, with other buffers."""
    model, config = open_run(prior), run_config.load(prior)
    return write_prior(folder, config, model.method.with_statistics(model.variables, statistics))


def write_prior(folder, config, variables):
    with checkpoint.opened(folder, writer=True) as checkpoints:
        checkpoints.save(1, imported_state(build(config.method), variables, 1).parts())
    run_config.save(config, folder)
    return folder


def sample(workdir, out, sampling=None, **settings):
    """The arrays that the task writes, and its metrics.json."""
    _, folder = run_task("sample", workdir, out, sampling=sampling, **settings)
    assert np.asarray(Image.open(folder / "grid.png")).ndim == 3
    with np.load(folder / "samples.npz") as arrays:
        return dict(arrays), json.loads((folder / "metrics.json").read_text())


SHORT = {"num_images": 6, "batch_size": 6, "grid_images": 5, "sampling": {"sampler": "euler", "steps": 3}}


# --- what is written


def test_a_method_without_a_code_samples_from_noise_alone(ddpm_run, tmp_path):
    """Image i depends on the seed and on i alone, also with fresh noise in every step: ancestral sampling."""
    ancestral = {"eta": 1.0}
    whole, numbers = sample(ddpm_run, tmp_path / "whole", ancestral)
    assert whole.keys() == {"images"} and whole["images"].shape == (6, 8, 8, 1) and whole["images"].dtype == np.uint8
    assert (numbers["images"], numbers["prior"], numbers["sampler"], numbers["eta"]) == (6, "", "exponential", 1.0)
    assert numbers["evaluations"] == 4  # ddim_range: range(0, 1000, 333) has 4 steps
    parts, _ = sample(ddpm_run, tmp_path / "parts", ancestral, batch_size=3)
    assert np.abs(whole["images"].astype(int) - parts["images"]).max() <= 1
    other, _ = sample(ddpm_run, tmp_path / "other", ancestral | {"seed": 1})
    assert np.abs(whole["images"].astype(int) - other["images"]).max() > 10


def test_an_auto_encoder_decodes_the_codes_of_its_prior(runs, tmp_path):
    ae, prior = runs
    arrays, numbers = sample(ae, tmp_path, prior=str(prior), **SHORT)
    assert arrays["images"].shape == (6, 8, 8, 1) and arrays["codes"].shape == (6, 8)
    assert numbers["prior"] == str(prior)
    assert (numbers["evaluations"], numbers["prior_evaluations"]) == (3, 3)
    model, how = open_run(ae), Sampling("euler", "karras", 3)
    assert numbers["weights"] == weights.digest(model.variables)
    np.testing.assert_array_equal(open_run(prior).generate(6), arrays["codes"])
    decoded = model.decode(arrays["codes"], model.endpoint(arrays["codes"]), how)
    assert np.abs((decoded + 1) * 127.5 - arrays["images"]).max() <= 1
    np.testing.assert_array_equal(model.generate(6, how, prior=open_run(prior)), decoded)
    parts, _ = sample(ae, tmp_path / "parts", prior=str(prior), **SHORT | {"batch_size": 3})
    np.testing.assert_allclose(parts["codes"], arrays["codes"], rtol=1e-3, atol=1e-4)
    assert np.abs(parts["images"].astype(int) - arrays["images"]).max() <= 1


def test_codes_are_brought_to_the_scale_that_the_prior_was_trained_at(runs, tmp_path):
    ae, prior = runs
    plain, _ = sample(ae, tmp_path / "plain", prior=str(prior), **SHORT)
    trained = open_run(prior)
    scale = {name: np.asarray(values) for name, values in trained.method.statistics(trained.variables).items()}
    with np.load(ae / "encode" / "digits_train.npz") as codes:
        for name, values in scale.items():
            np.testing.assert_allclose(values, codes[name], rtol=1e-5, atol=1e-6)
    mean, std = np.arange(8), np.linspace(0, 2, 8)
    other = prior_with(prior, tmp_path / "prior", mean=mean, std=std)
    moved, _ = sample(ae, tmp_path / "moved", prior=str(other), **SHORT)
    np.testing.assert_allclose(
        (plain["codes"] - scale["mean"]) / scale["std"] * std, moved["codes"] - mean, rtol=1e-3, atol=1e-3
    )


# --- whose prior

UNKNOWN = {"mean": np.zeros(8), "std": np.ones(8), "fingerprint": np.zeros(8)}  # an imported prior's


def test_an_imported_prior_takes_the_scale_that_encode_has_found(runs, tmp_path, caplog):
    ae, prior = runs
    expected, _ = sample(ae, tmp_path / "a", prior=str(prior), **SHORT)
    shutil.copytree(ae, tmp_path / "ae")
    imported = prior_with(prior, tmp_path / "prior", **UNKNOWN)
    run_sample = lambda: run_task("sample", tmp_path / "ae", tmp_path / "ae", prior=str(imported), **SHORT)  # noqa: E731
    with caplog.at_level(logging.WARNING):
        _, folder = run_sample()
    assert "does not say which auto-encoder" in caplog.text
    np.testing.assert_allclose(np.load(folder / "samples.npz")["codes"], expected["codes"], rtol=1e-5, atol=1e-5)
    shutil.rmtree(tmp_path / "ae" / "encode")
    with pytest.raises(UserError, match="imported without the mean and std.*--task=encode.*split=train"):
        run_sample()
    with pytest.raises(UserError, match="imported without the mean and std of its codes; --task=sample"):
        open_run(ae).generate(2, prior=open_run(imported))


def test_a_prior_of_another_networks_codes_is_refused(runs, tmp_path):
    ae, prior = runs
    fingerprint = np.asarray(open_run(prior).method.statistics(open_run(prior).variables)["fingerprint"])
    other = prior_with(prior, tmp_path / "prior", fingerprint=1.01 * fingerprint)
    with pytest.raises(UserError, match="another auto-encoder's codes, or .* was trained since"):
        run_task("sample", ae, tmp_path, prior=str(other), **SHORT)
    assert not (tmp_path / "sample").exists()


def test_a_prior_that_knows_the_scale_alone_keeps_it(runs, tmp_path, caplog):
    """Codes of an earlier version, or an official file, have no fingerprint."""
    ae, prior = runs
    shutil.copytree(ae, tmp_path / "ae")
    shutil.rmtree(tmp_path / "ae" / "encode")
    expected, _ = sample(ae, tmp_path / "a", prior=str(prior), **SHORT)
    other = prior_with(prior, tmp_path / "prior", fingerprint=np.zeros(8))
    with caplog.at_level(logging.WARNING):
        arrays, _ = sample(tmp_path / "ae", tmp_path / "b", prior=str(other), **SHORT)
    np.testing.assert_array_equal(arrays["codes"], expected["codes"])
    assert "does not say which auto-encoder" in caplog.text


def test_what_cannot_be_sampled_is_refused(runs, ddpm_run, tmp_path):
    ae, prior = runs
    config = run_config.load(prior).unlock()
    config.data.channels = config.method.channels = 9
    method = build(config.method)
    write_prior(tmp_path / "wide", config, method.init(jax.random.key(0), {"image": jnp.zeros((1, 1, 1, 9))}))
    for name, changes in {"grid": {"grid": "karas"}, "steps": {"steps": 0}, "eta": {"eta": -1.0}}.items():
        shutil.copytree(prior, tmp_path / name)
        config = run_config.load(prior).unlock()
        config.sampling.update(changes)
        run_config.save(config, tmp_path / name)
    for workdir, settings, message in [
        (ae, {}, "needs codes.*--task=encode.*latent_prior_FILE.*tasks.sample.prior=PRIOR"),
        (ae, {"prior": str(tmp_path / "nowhere")}, "nowhere is no run"),
        (ae, {"prior": str(ddpm_run)}, "is a DDPM run, no prior"),
        (ae, {"prior": str(ae)}, "is a DBAE run, no prior"),
        (ae, {"prior": str(tmp_path / "wide")}, "codes of 9 dimensions, .* takes 8"),
        (ddpm_run, {"prior": str(prior)}, "is of no use: the model in .* has no codes"),
        (prior, {}, "makes codes, no images: sample with its auto-encoder's --workdir"),
        (ae, {"num_images": 0}, "num_images is 0"),
        (ae, {"grid_images": 0}, "grid_images is 0"),
        (ae, {"sampling": {"steps": 0}}, "sampling.steps 0"),
        (ae, {"sampling": {"sampler": "huen"}}, "Did you mean 'heun'"),
        (ddpm_run, {"sampling": {"eta": -1.0}}, "eta -1.0"),
        (ae, {"prior": str(tmp_path / "grid")}, "Did you mean 'karras'"),
        (ae, {"prior": str(tmp_path / "steps")}, "sampling.steps 0"),
        (ae, {"prior": str(tmp_path / "eta")}, "eta -1.0"),
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
class TwoWays(AutoEncoder):
    """Decodes an image's code to 0.5 and a sampled one to -0.5."""

    image_size, channels, latent_dim, process = 2, 1, 1, DiscreteVP()

    def endpoint(self, variables, z, keys):
        return jnp.zeros((len(z), 2, 2, 1))

    def denoiser(self, variables, z, xT):
        return lambda x, t: jnp.full_like(x, 0.5)

    def denoiser_of_sample(self, variables, z, xT):
        return lambda x, t: jnp.full_like(x, -0.5)


def test_decoding_asks_for_the_denoiser_of_samples():
    model = Model(TwoWays(), {"params": {}}, make_mesh(), Sampling(grid="ddim_range", steps=2))
    z = np.zeros((3, 1), np.float32)
    np.testing.assert_allclose(model.decode(z), 0.5, atol=1e-6)
    np.testing.assert_allclose(model.decode_generated(z), -0.5, atol=1e-6)


def test_the_noise_of_a_code_is_not_that_of_its_image(pdae):
    """The prior of a network that answers 0 returns z_T up to a factor: nothing of it is in the image's x_T."""
    method, variables = pdae
    mesh = make_mesh()
    prior = build(small(latent_prior_digits, channels=6).method)
    fresh = prior.init(jax.random.key(0), {"image": jnp.zeros((1, 1, 1, 6))})
    zeros, how = fresh | {"params": jax.tree.map(jnp.zeros_like, fresh["params"])}, Sampling(grid="ddim_range", steps=2)
    z = Model(prior, zeros, mesh, how).generate(1000)
    assert z.std() > 0.5
    xT = Model(method, jax.device_put(variables), mesh, how).endpoint(z).reshape(1000, -1)
    correlation = np.corrcoef(np.hstack([z, xT[:, :8]]).T)[:6, 6:]
    assert np.abs(correlation).max() < 0.15
