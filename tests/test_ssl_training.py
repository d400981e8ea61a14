"""Training with a self-supervised loss: when it begins, what it trains, what it leaves alone, and where it goes."""

import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import pdae_digits
from diffrep_jax import data, sharding
from diffrep_jax.inference.open import open_run
from diffrep_jax.methods.base import build
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.tasks import base as tasks
from diffrep_jax.train import init_from, optimizer
from diffrep_jax.train.state import abstract_state
from diffrep_jax.train.step import example_keys
from tests.ssl_toy import normal
from tests.tiny import start


def tiny(module, variant="", **train_settings):
    """A digits config made small: 8 x 8 images, a code of 8."""
    config = module.get_config(variant).unlock()
    config.data.update(image_size=8, flip=True)
    config.method.unet.update(width=8, mult=(1,), attention=())
    if "encoder" in config.method:
        config.method.update(latent_dim=8)
        config.method.encoder.update(widths=(8, 8), attention=())
    if variant:
        config.method.ssl.update(start_step=2, batch_size=6, hidden=8, weight=0.5)
    config.train.update(total_steps=5, batch_size=8, log_every=1, checkpoint_every=100)
    config.train.update(train_settings)
    return config.lock()


def run(config, folder, **train_settings):
    """Trained as the command does, but on a base as it was drawn, which a user could not."""
    config = config.copy_and_resolve_references().unlock()
    config.train.update(train_settings)
    with mock.patch.multiple(init_from, networks_of=lambda *_: {}, check=lambda *_: None):
        return start(config.lock(), folder)


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(folder, state) of five steps, three of them with views."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(tiny(pdae_digits, "ssl=simclr"), folder)


def test_the_loss_begins_at_its_step_and_falls_into_the_log(whole):
    logged = [("loss_ssl" in line, line["step"]) for line in lines(whole[0])]
    assert logged == [(False, 1), (False, 2), (True, 3), (True, 4), (True, 5)]
    assert all(np.isfinite(list(line.values())).all() for line in lines(whole[0]))


def test_a_run_that_stops_and_goes_on_is_bitwise_the_same(whole, tmp_path):
    """Stopped before the views begin, and among them."""
    for steps in (1, 4, 5):
        state = run(tiny(pdae_digits, "ssl=simclr"), tmp_path, total_steps=steps)
    assert jax.tree.structure(state) == jax.tree.structure(whole[1])
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    for ours, theirs in zip(lines(tmp_path), lines(whole[0]), strict=True):
        speed = {"images_per_second": 0, "images_per_second_per_device": 0, "time": 0}
        assert ours | speed == theirs | speed


def test_before_the_start_nothing_is_different(tmp_path):
    """Up to the last bit, which depends on how XLA joins the operations of two programs."""
    plain = run(tiny(pdae_digits), tmp_path / "plain", total_steps=2)
    ssl = run(tiny(pdae_digits, "ssl=simclr"), tmp_path / "ssl", total_steps=2)
    assert set(ssl.params) - set(plain.params) == {"ssl"}
    same = {name: ssl.params[name] for name in plain.params}
    for ours, theirs in ((same, plain.params), (ssl.ema, plain.ema)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8), ours, theirs)
    method = build(tiny(pdae_digits, "ssl=simclr").method)
    start = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})["params"]
    jax.tree.map(np.testing.assert_array_equal, ssl.params["ssl"], start["ssl"])


def test_afterwards_encoder_and_heads_have_moved_and_the_base_has_not(whole):
    folder, state = whole
    method = build(run_config.load(folder).method)
    start = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})["params"]
    jax.tree.map(np.testing.assert_array_equal, state.params["unet"], start["unet"])
    for name in ("encoder", "ssl"):
        pairs = zip(*map(jax.tree.leaves, (start[name], state.params[name])), strict=True)
        assert any(np.any(a != b) for a, b in pairs), name


def test_without_weight_there_are_no_heads_and_no_second_loader(tmp_path, monkeypatch):
    config = tiny(pdae_digits, "ssl=simsiam", total_steps=1).unlock()
    config.method.ssl.weight = 0.0
    method = build(config.method)
    assert method.views is None
    state = abstract_state(method, optimizer.build(config.optim, method), sharding.make_mesh())
    assert set(state.params) == {"unet", "gradient_estimator", "encoder"}
    monkeypatch.setattr(data, "view_batches", None)  # not to be called
    run(config.lock(), tmp_path)
    assert "loss_ssl" not in lines(tmp_path)[0]


def test_without_main_weight_the_own_loss_is_logged_and_counts_nothing():
    config = tiny(pdae_digits, "ssl=simclr").unlock()
    values, images = {}, np.tanh(normal(4, 8, 8, 1))
    for main_weight in (1.0, 0.5, 0.0):
        config.method.ssl.main_weight = main_weight
        method = build(config.method)
        variables = method.init(jax.random.key(0), {"image": images})
        out = jax.jit(method.loss, static_argnums=3)(variables, {"image": images}, example_keys(0, 0, 4), True)
        values[main_weight] = float(out[0]), float(out[1]["loss"])
    loss = values[1.0][1]
    assert loss > 0
    assert values == {1.0: (loss, loss), 0.5: (pytest.approx(loss / 2), loss), 0.0: (0.0, loss)}


def test_an_exported_run_comes_back_with_its_heads_and_the_official_file_is_without(whole, tmp_path, monkeypatch):
    from diffrep_jax.port import files

    written = {}
    monkeypatch.setattr(files, "write_torch", lambda path, content: written.update(content))
    config = run_config.load(whole[0])
    method, mesh = build(config.method), sharding.make_mesh()
    variables = load_variables(whole[0], method, mesh)
    tasks.build("export", config.tasks.export, {}).run(open_run(whole[0]), Run.at(whole[0], config))
    assert written and not any("projector" in name for name in written)
    (exported,) = (whole[0] / "export").glob("*.safetensors")
    task = tasks.build("import", config.tasks["import"], {"checkpoint": exported})
    task.run(None, Run.at(tmp_path, run_config.load(whole[0])))
    jax.tree.map(np.testing.assert_array_equal, load_variables(tmp_path, method, mesh), variables)
