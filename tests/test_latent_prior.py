"""The latent prior: its loss and process in closed form, Gaussian codes sampled back, its data set and AdamW."""

import dataclasses
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import latent_prior_digits
from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods.base import build
from diffrep_jax.methods.latent_prior import BUFFERS, LatentPrior
from diffrep_jax.runs.layout import Run
from diffrep_jax.samplers import Sampling, normal_noise
from diffrep_jax.train import optimizer
from diffrep_jax.train.loop import train
from diffrep_jax.train.settings import check_optim

MEAN = np.array([3.0, -1.0, 0.0, 10.0])
FACTOR = np.array([[2, 0, 0, 0], [1.6, 1.2, 0, 0], [0, 0, 0.1, 0], [0, 0, -0.05, 0.1]])  # codes = mean + factor normal
HEUN = Sampling("heun", "karras", 50)  # exact to 1 % for these Gaussians, as DDIM's 100 are to 10 %


def write_codes(folder, z, name="toy_train.npz", **changes):
    """A file as `encode` writes it; `changes` replace or add arrays, None leaves one out."""
    folder.mkdir(exist_ok=True)
    arrays = {"codes": z.astype(np.float32), "mean": z.mean(0), "std": z.std(0)} | changes
    np.savez(folder / name, **{key: value for key, value in arrays.items() if value is not None})
    return folder / name


def toy_codes(n=4000):
    return MEAN + np.random.default_rng(0).standard_normal((n, 4)) @ FACTOR.T


def toy_config(dimensions=4, **train_settings):
    config = latent_prior_digits.get_config().unlock()
    config.data.channels = dimensions
    config.method.mlp.update(width=64, layers=3, time_width=16)
    config.optim.update(lr=3e-3, ema_decay=0.995)
    config.train.update(total_steps=600, batch_size=256, log_every=100, checkpoint_every=1000)
    config.train.update(train_settings)
    return config.lock()


def open_codes(place, channels=4, split="train", image_size=1):
    return data.open_dataset("codes", split=split, image_size=image_size, channels=channels, data_dir=place)


# --- the method


def fresh(method):
    return method.init(jax.random.key(0), {"image": jnp.zeros((1, 1, 1, method.channels))})


def zero_network(method):
    """The variables of a network that always answers 0, with the buffers of a fresh one."""
    variables = fresh(method)
    return variables | {"params": jax.tree.map(jnp.zeros_like, variables["params"])}


def test_the_loss_is_the_absolute_error_of_the_noise():
    """A network that answers 0 is wrong by |eps|, whose mean is sqrt(2 / pi); the square's would be 1."""
    method = build(toy_config().method)
    batch = {"image": jnp.ones((4096, 1, 1, 4))}
    loss, metrics, _ = method.loss(zero_network(method), batch, jax.random.split(jax.random.key(0), 4096), train=True)
    assert float(loss) == pytest.approx(np.sqrt(2 / np.pi), abs=0.02)  # 4 standard errors
    assert metrics.keys() == {"loss"}


def test_every_step_has_the_same_beta():
    process = build(toy_config().method).process
    t = jnp.array([-1.0, 0.0, 9.0, 999.0])
    a, b, c = process.coefficients(t)
    np.testing.assert_allclose(b**2, 0.992 ** (np.asarray(t) + 1), rtol=1e-4)
    np.testing.assert_allclose(b**2 + c**2, 1, rtol=1e-5)
    assert not a.any()


@pytest.mark.parametrize("field, value, message", [("image_size", 2, "one pixel"), ("beta", 0.0, "0.008")])
def test_impossible_fields_are_refused(field, value, message):
    with pytest.raises(UserError, match=f"config.method.{field}={value}.*{message}"):
        dataclasses.replace(build(toy_config().method), **{field: value})


class Exact(LatentPrior):
    """Knows the noise in codes of independent dimensions with the variances VARIANCES: E[eps | z_t]."""

    def predict(self, variables, x, t, keys=None):
        _, b, c = (k[:, None, None, None] for k in self.process.coefficients(t))
        return c * x / (b**2 * VARIANCES + c**2)


VARIANCES = jnp.array([0.25, 1.0, 25.0, 4.0])


@pytest.fixture(scope="module")
def exact():
    return Exact(**{k: v for k, v in toy_config().method.items() if k != "name"})


def test_ddim_with_the_exact_noise_scales_each_dimension_by_its_deviation(exact):
    """The ODE between Gaussians is linear: z_0 = sqrt(variance) z_T. Values far outside [-1, 1] are not clipped."""
    zT = jax.random.normal(jax.random.key(0), (64, 1, 1, 4))
    how = Sampling(grid="ddim_range", steps=1000)
    variables = {"batch_stats": zero_network(exact)["batch_stats"]}
    z0 = jax.jit(lambda: exact.generate(variables, zT, how.stepper(), how.plan(exact.process)))()
    zT = zT[:, 0, 0]
    np.testing.assert_allclose(z0 / zT, np.broadcast_to(np.sqrt(VARIANCES), zT.shape), rtol=0.03)
    assert np.abs(z0).max() > 5


def test_ancestral_sampling_with_the_exact_noise_has_the_variances_of_the_codes(exact):
    keys = jax.random.split(jax.random.key(0), 2048)
    zT = exact.endpoint(keys)
    how, noise = Sampling(grid="ddim_range", steps=1000, eta=1.0), normal_noise(keys, zT.shape)
    variables = {"batch_stats": zero_network(exact)["batch_stats"]}
    z0 = jax.jit(lambda: exact.generate(variables, zT, how.stepper(), how.plan(exact.process), noise))()
    np.testing.assert_allclose(z0.std(0), np.sqrt(VARIANCES), rtol=0.08)  # 5 % of it is the grid's, at 0.25
    correlation = np.corrcoef(np.hstack([z0, zT[:, 0, 0]]).T)
    assert np.abs(correlation - np.eye(8)).max() < 0.1  # all of the start is forgotten, unlike with eta = 0


# --- the scale of the codes


def test_the_loss_sees_codes_at_unit_scale():
    """Codes of mean MEAN and deviation 2 or 0 are as those of 0 and 1: the same draws, the same loss."""
    method = build(toy_config().method)
    variables = jax.tree.map(lambda x: x + 0.1, fresh(method))
    unit = method.with_statistics(variables, {"mean": np.zeros(4), "std": np.ones(4), "fingerprint": np.zeros(4)})
    std = np.array([2.0, 2.0, 0.0, 2.0])  # the third carries nothing: all codes have its mean
    scaled = method.with_statistics(variables, {"mean": MEAN, "std": std})
    random = np.random.default_rng(0)
    z0, eps = (jnp.asarray(random.standard_normal((8, 1, 1, 4)), jnp.float32) for _ in range(2))
    z0 = z0.at[..., 2].set(0)
    t = jnp.linspace(0, 999, 8).round()
    losses = [method.loss_at(unit, z0, t, eps), method.loss_at(scaled, z0 * std + MEAN, t, eps)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_statistics_go_into_the_buffers_and_nowhere_else():
    method = build(toy_config().method)
    variables = fresh(method)
    assert set(BUFFERS) == set(method.statistics(variables))
    np.testing.assert_array_equal(method.statistics(variables)["std"], np.ones(4))
    some = method.with_statistics(variables, {"mean": MEAN, "std": np.arange(4.0)})  # of an earlier version
    for name, values in {"mean": MEAN, "std": np.arange(4.0), "fingerprint": np.zeros(4)}.items():
        np.testing.assert_array_equal(method.statistics(some)[name], values.astype(np.float32))
    assert some["params"] is variables["params"]
    np.testing.assert_array_equal(method.statistics(variables)["mean"], np.zeros(4))


def test_generated_codes_have_the_scale_of_the_buffers(exact):
    """z = mean + std z_0, whatever the process made."""
    zT = jax.random.normal(jax.random.key(0), (16, 1, 1, 4))
    how, std = Sampling(grid="ddim_range", steps=5), np.array([2.0, 0.0, 1.0, 0.5], np.float32)
    plain, moved = (
        exact.generate(exact.with_statistics(fresh(exact), s), zT, how.stepper(), how.plan(exact.process))
        for s in ({}, {"mean": MEAN, "std": std})
    )
    assert moved.shape == (16, 4)
    np.testing.assert_allclose(moved, MEAN + std * plain, rtol=1e-5, atol=1e-5)


# --- training and sampling


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    """(the run of a prior of correlated Gaussian codes, the codes' file)."""
    folder = tmp_path_factory.mktemp("prior")
    file = write_codes(folder / "encode", toy_codes(), fingerprint=np.arange(1.0, 5.0))
    config = toy_config()
    train(build(config.method), Run.at(folder / "run", config), folder / "encode")
    return folder / "run", file


@pytest.fixture(scope="module")
def toy_prior(toy_run):
    return open_run(toy_run[0])


def test_samples_have_the_mean_and_the_covariance_of_the_codes(toy_prior):
    """Of N(MEAN, FACTOR FACTOR^T); correlations of 0.8 and -0.45 between dimensions of very different scales."""
    z = toy_prior.generate(4096, HEUN)
    covariance = FACTOR @ FACTOR.T
    deviations = np.sqrt(np.diag(covariance))
    assert np.abs((z.mean(0) - MEAN) / deviations).max() < 0.12
    np.testing.assert_allclose(z.std(0), deviations, rtol=0.12)
    expected = covariance / deviations / deviations[:, None]
    assert np.abs(np.corrcoef(z.T) - expected).max() < 0.1


def test_sample_i_depends_on_the_seed_and_on_i_alone(toy_prior):
    how = Sampling(grid="ddim_range", steps=5, eta=1.0)
    whole = toy_prior.generate(6, how)
    parts = [toy_prior.generate(n, how, numbers=first) for n, first in ((3, 0), (3, 3))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-4)
    chosen = toy_prior.generate(3, how, numbers=np.array([4, 0, 2]))
    np.testing.assert_allclose(chosen, whole[[4, 0, 2]], rtol=1e-4, atol=1e-4)
    assert np.abs(toy_prior.generate(6, how, seed=1) - whole).max() > 0.1
    assert len({row.tobytes() for row in whole}) == 6


def test_a_run_keeps_the_scale_and_the_fingerprint_of_its_codes(toy_run):
    """In its averaged weights and in its live ones, not averaged with the start's."""
    run, file = toy_run
    with np.load(file) as given:
        for weights in ("ema", "live"):
            prior = open_run(run, weights)
            for name in BUFFERS:
                kept = prior.method.statistics(prior.variables)[name]
                np.testing.assert_allclose(kept, given[name], rtol=1e-5, atol=1e-6)


def test_a_run_goes_on_with_the_codes_of_its_auto_encoder_alone(toy_run, tmp_path):
    run = shutil.copytree(toy_run[0], tmp_path / "run")
    config = toy_config()
    with config.unlocked():
        config.train.total_steps += 1
    before = (run / "run.json").read_bytes()
    write_codes(tmp_path / "other", toy_codes(), fingerprint=np.arange(1.0, 5.0) + 0.01)
    with pytest.raises(UserError, match="codes in --data_dir are of another auto-encoder, or of another state of it"):
        train(build(config.method), Run.at(run, config), tmp_path / "other")
    assert (run / "run.json").read_bytes() == before
    write_codes(tmp_path / "same", toy_codes(), fingerprint=np.arange(1.0, 5.0) * (1 + 1e-6))  # of another machine
    assert int(train(build(config.method), Run.at(run, config), tmp_path / "same").step) == config.train.total_steps


# --- the data set


def test_codes_arrive_as_they_are_with_their_statistics(tmp_path):
    z = toy_codes()
    z[:, 2] = 7.0  # carries nothing
    dataset = open_codes(write_codes(tmp_path, z, fingerprint=np.ones(4)))
    batch = next(data.ordered_batches(dataset, batch_size=len(z)))
    assert batch["image"].shape == (4000, 1, 1, 4) and batch["image"].dtype == np.float32
    np.testing.assert_array_equal(batch["image"].reshape(-1, 4), z.astype(np.float32))
    statistics = {"mean": z.mean(0), "std": z.std(0), "fingerprint": np.ones(4)}
    assert dataset.statistics.keys() == statistics.keys()
    for name, values in statistics.items():
        np.testing.assert_allclose(dataset.statistics[name], values, rtol=1e-5, atol=1e-6)
    assert open_codes(write_codes(tmp_path, z, "old_train.npz")).statistics.keys() == {"mean", "std"}


def test_training_batches_are_codes(tmp_path):
    z = toy_codes(20)
    dataset = pickle.loads(pickle.dumps(open_codes(write_codes(tmp_path, z))))
    batches = data.train_batches(dataset, data.Loading(seed=0, batch_size=20, start_step=0, workers=0), flip=False)
    epoch = next(batches)["image"].reshape(20, 4)
    np.testing.assert_allclose(epoch[epoch[:, 0].argsort()], z[z[:, 0].argsort()], rtol=1e-6, atol=1e-6)


def test_the_file_is_found_by_its_split(tmp_path):
    write_codes(tmp_path, toy_codes(5), "toy_train.npz")
    write_codes(tmp_path, toy_codes(6), "toy_test.npz")
    assert [len(open_codes(tmp_path, split=split)) for split in ("train", "test")] == [5, 6]
    assert len(open_codes(tmp_path / "toy_test.npz")) == 6  # a file is taken as it is
    write_codes(tmp_path, toy_codes(7), "other_train.npz")
    with pytest.raises(UserError, match="other_train.npz, toy_train.npz: give the file"):
        open_codes(tmp_path)


@pytest.mark.parametrize(
    "changes, request_, message",
    [
        ({}, {"channels": 512}, r"4 dimensions, data.channels is 512: add --config.data.channels=4"),
        ({}, {"image_size": 16}, "data.image_size is 16: use 1"),
        ({}, {"split": "tset"}, "Did you mean 'test'"),
        ({}, {"split": "test"}, r"no \*_test.npz, in .*--task=encode"),
        ({"std": None}, {}, "has no std"),
        ({"codes": None}, {}, "has no codes"),
        ({"mean": np.zeros(3)}, {}, r"codes \(5, 4\) and mean \(3,\), std \(4,\): use a file of .*--task=encode"),
        ({"mean": np.zeros(3), "std": np.zeros(3)}, {}, r"codes \(5, 4\) and mean \(3,\)"),
        ({"fingerprint": np.zeros(5)}, {}, r"codes \(5, 4\) and .*fingerprint \(5,\)"),
        ({"codes": np.zeros((0, 4))}, {}, r"codes \(0, 4\)"),
        ({"codes": np.full((5, 4), np.nan)}, {}, "not finite"),
    ],
)
def test_codes_that_do_not_fit_are_refused(changes, request_, message, tmp_path):
    write_codes(tmp_path, toy_codes(5), **changes)
    with pytest.raises(UserError, match=message):
        open_codes(tmp_path, **request_)


def test_files_that_are_no_codes_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("DIFFREP_DATA", raising=False)
    with pytest.raises(UserError, match="needs codes.*--task=encode"):
        open_codes(None)
    np.save(tmp_path / "array.npy", np.zeros((5, 4)))
    for name, content in (("empty.npz", b""), ("text.npz", b"hello"), ("cut.npz", b"PK\3\4 and no more")):
        (tmp_path / name).write_bytes(content)
    for name in ("empty.npz", "text.npz", "cut.npz", "array.npy"):
        with pytest.raises(UserError, match=f"{name}' is no npz of codes"):
            open_codes(tmp_path / name)


# --- AdamW


def test_adamw_shrinks_what_adam_leaves_and_goes_the_same_way():
    """Without a gradient a step multiplies by 1 - lr weight_decay; else that comes on top of Adam's step."""
    method = build(toy_config().method)
    params = jax.tree.map(lambda x: x + 1.0, zero_network(method)["params"])

    def stepped(gradient, **settings):
        optim = optimizer.build(ConfigDict({"lr": 0.1, "ema_decay": 0.9} | settings), method)
        grads = jax.tree.map(lambda x: jnp.full_like(x, gradient), params)
        after = optax.apply_updates(params, optim.update(grads, optim.init(params), params)[0])
        values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(after)])
        assert np.ptp(values) < 1e-6  # biases and norms decay too, as in the official code
        return values[0]

    adamw = {"name": "adamw", "weight_decay": 0.01}
    assert stepped(0.0, **adamw) == pytest.approx(0.999)
    assert stepped(0.0, name="adam") == 1
    assert stepped(2.0, **adamw) == pytest.approx(stepped(2.0, name="adam") - 0.001)
    assert stepped(2.0, name="adam") == pytest.approx(0.9)  # Adam's first step is lr


def test_weight_decay_that_an_optimizer_has_not_is_refused():
    section = ConfigDict({"name": "adam", "lr": 0.1, "ema_decay": 0.9, "weight_decay": 0.1})
    with pytest.raises(UserError, match="weight_decay=0.1 is of no use to config.optim.name=adam; leave it at 0"):
        check_optim(section)
    with section.unlocked():
        section.weight_decay = 0.0
    check_optim(section)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({}, "adamw needs config.optim.weight_decay"), ({"weight_decay": -0.1}, "config.optim.weight_decay is -0.1")],
)
def test_adamw_needs_its_weight_decay(settings, message):
    section = ConfigDict({"name": "adamw", "lr": 0.1, "ema_decay": 0.9} | settings)
    with pytest.raises(UserError, match=message):
        optimizer.build(section, build(toy_config().method))
