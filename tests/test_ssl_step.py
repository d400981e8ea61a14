"""A training step with a self-supervised loss, on a method of one matrix: what it adds, to which parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrep_jax import config as configs
from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from diffrep_jax.methods import base as methods
from diffrep_jax.methods import parameters as frozen
from diffrep_jax.methods.ssl import self_supervised
from diffrep_jax.train import optimizer
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import make_train_step
from tests.ssl_toy import SIMCLR, SIMSIAM, Toy, normal
from tests.tiny import run_python

BATCH = {"image": np.tanh(normal(8, 4, 4, 1))}
VIEWS = {"views": {"view1": np.tanh(normal(6, 4, 4, 1)), "view2": np.tanh(normal(6, 4, 4, 1))}}


def step_of(section, views=True, **options):
    """(the state before, after, metrics) of one step of gradient descent, with the heads at a rate of their own."""
    return _step_of(methods.freeze(section), views, **options)


@functools.cache
def _step_of(section, views, microbatches=1, heads_lr=0.1):
    method = Toy(section)
    optim = optax.multi_transform({"train": optax.sgd(0.1), "ssl": optax.sgd(heads_lr)}, method.param_labels)
    state = create_state(method, optim, sharding.make_mesh(), 0)
    step = make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=microbatches)
    return state, *jax.jit(step)(state, BATCH | (VIEWS if views else {}))


def moved(before, after, name):
    return [a - b for a, b in zip(*(jax.tree.leaves(s.params[name]) for s in (after, before)), strict=True)]


@pytest.mark.parametrize("section", [SIMCLR, SIMSIAM], ids=["simclr", "simsiam"])
def test_the_whole_batch_of_views_counts_once_whatever_the_microbatches(section):
    _, whole, metrics = step_of(section)
    _, parts, parts_metrics = step_of(section, microbatches=4)
    assert parts_metrics["loss_ssl"] == pytest.approx(float(metrics["loss_ssl"]), rel=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), parts.params, whole.params)


def test_the_weight_scales_what_is_added_and_the_loss_is_logged_without_it():
    _, plain, plain_metrics = step_of(SIMCLR, views=False)
    _, one, metrics = step_of(SIMCLR)
    _, two, _ = step_of(SIMCLR | {"weight": 1.0})
    added, twice = (s.params["encoder"]["w"] - plain.params["encoder"]["w"] for s in (one, two))
    assert np.abs(added).max() > 1e-4
    np.testing.assert_allclose(twice, 2 * added, atol=1e-6)
    assert metrics["loss"] == plain_metrics["loss"] and "loss_ssl" not in plain_metrics
    assert 0 < metrics["loss_ssl"] < 2 * np.log(11) + 2


def test_the_encoder_alone_decays_and_only_with_views():
    """PyTorch's Adam adds decay times the parameter to the gradient; so does this, and to no other parameter."""
    decay = {"encoder_decay": 0.25}
    before, without, _ = step_of(SIMCLR)
    _, with_decay, metrics = step_of(SIMCLR | decay)
    difference = with_decay.params["encoder"]["w"] - without.params["encoder"]["w"]
    np.testing.assert_allclose(difference, -0.1 * 0.25 * before.params["encoder"]["w"], atol=1e-6)
    for name in ("decoder", "ssl"):
        jax.tree.map(np.testing.assert_array_equal, with_decay.params[name], without.params[name])
    plain, decayed = (step_of(SIMCLR | more, views=False)[1].params for more in ({}, decay))
    jax.tree.map(np.testing.assert_array_equal, decayed, plain)


def test_the_heads_have_a_rate_of_their_own():
    slow, fast = (step_of(SIMSIAM, heads_lr=lr) for lr in (0.125, 0.25))
    jax.tree.map(np.testing.assert_array_equal, fast[1].params["encoder"], slow[1].params["encoder"])
    for a, b in zip(moved(*fast[:2], "ssl"), moved(*slow[:2], "ssl"), strict=True):
        np.testing.assert_allclose(a, 2 * b, atol=1e-6)
    assert any(np.abs(leaf).max() > 1e-4 for leaf in moved(*slow[:2], "ssl"))


def test_heads_are_not_averaged_nor_part_of_the_model():
    state, after, _ = step_of(SIMSIAM)
    assert set(state.params) == {"encoder", "decoder", "ssl"} and set(after.ema["params"]) == {"encoder", "decoder"}
    assert set(after.averaged["params"]) == {"encoder", "decoder", "ssl"}
    assert set(frozen.used(Toy(methods.freeze(SIMSIAM)), after.params)) == {"encoder", "decoder"}


def test_the_heads_optimizer_is_the_configs():
    config = configs.ConfigDict({"name": "adam", "lr": 0.1, "ema_decay": 0.9, "ssl": {"name": "sgd", "lr": 0.5}})
    method = Toy(methods.freeze(SIMCLR))
    params = method.init(jax.random.key(0), {})["params"]
    optim = optimizer.build(config, method)
    state = optim.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    for expected in (-0.5, -0.5 * 1.9, -0.5 * 2.71):  # momentum 0.9
        updates, state = optim.update(ones, state, params)
        jax.tree.map(
            lambda leaf, expected=expected: np.testing.assert_allclose(leaf, expected, rtol=1e-6), updates["ssl"]
        )
        np.testing.assert_allclose(updates["encoder"]["w"], -0.1, rtol=1e-4)  # 1 - 0.999 in float32
    del config.ssl
    with pytest.raises(UserError, match="config.optim lacks the section 'ssl'"):
        optimizer.build(config, method).init(params)
    config.ssl = {"name": "sdg", "lr": 0.5}
    with pytest.raises(UserError, match="Unknown optimizer 'sdg' in config.optim.ssl.name"):
        optimizer.build(config, method)


def test_views_that_devices_cannot_share_are_refused():
    mesh = jax.sharding.AbstractMesh((4, 1), ("data", "fsdp"))
    views = self_supervised(SIMCLR | {"batch_size": 6}).views
    field = views.place.removeprefix("config.")
    with pytest.raises(UserError, match="config.method.ssl.batch_size=6 does not divide by the mesh of 4"):
        sharding.check_divides(views.batch_size, mesh, field)


DEVICES = """
import jax, numpy as np
from diffrep_jax import config as configs
from diffrep_jax.methods.base import freeze
from diffrep_jax import sharding
from diffrep_jax.train import optimizer
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import compile_step, make_train_step
from tests.ssl_toy import SIMCLR, SIMSIAM, Toy
random = np.random.default_rng(0)
config = configs.ConfigDict({"name": "sgd", "lr": 0.1, "ema_decay": 0.9, "ssl": {"name": "sgd", "lr": 0.1}})
for section in (SIMCLR, SIMSIAM):
    method = Toy(freeze(section | {"hidden": 128}))
    mesh = sharding.make_mesh(fsdp=FSDP)
    optim = optimizer.build(config, method)
    state = create_state(method, optim, mesh, 0)
    draw = lambda: np.tanh(random.standard_normal((16, 4, 4, 1))).astype(np.float32)
    batch = sharding.put_batch({"image": draw(), "views": {"view1": draw(), "view2": draw()}}, mesh)
    compiled = compile_step(make_train_step(method, optim, ema_decay=0.9, seed=0, microbatches=2), state, batch, mesh)
    for _ in range(3):
        state, metrics = compiled(state, batch)
        norms = [float(np.linalg.norm(leaf)) for leaf in jax.tree.leaves(state.params)]
        print("values", float(metrics["loss"]), float(metrics["loss_ssl"]), float(metrics["grad_norm"]), sum(norms))
"""


@pytest.mark.slow
def test_eight_devices_compare_as_one():
    outputs = {}
    for devices, fsdp in ((1, 1), (8, 2)):
        output = run_python(DEVICES.replace("FSDP", str(fsdp)), devices=devices)
        printed = [line.split()[1:] for line in output.splitlines() if line.startswith("values")]
        outputs[devices] = np.array(printed, float)
    assert outputs[1].shape == (6, 4)
    np.testing.assert_allclose(outputs[8], outputs[1], rtol=1e-5)
    assert np.ptp(outputs[1][:3, 1]) > 1e-4  # three different steps
