"""Frozen networks: a DDPM's run goes into a DiTi, stays bitwise what it was, and costs no average and no optimizer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffrep_jax
from configs import ddpm_digits, diti_digits
from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import build
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import CONFIG, Run
from diffrep_jax.samplers import Sampling
from diffrep_jax.tasks import base as tasks
from diffrep_jax.train import optimizer
from diffrep_jax.train.init_from import networks_of
from diffrep_jax.train.loop import train
from diffrep_jax.train.state import abstract_state, create_state
from diffrep_jax.train.step import make_train_step


def tiny(module, **train_settings):
    """A digits config made small: 8 x 8 images, a code of 16."""
    config = module.get_config().unlock()
    config.data.image_size = 8
    config.method.unet.update(width=8, mult=(1, 2), attention=(), dropout=0.1)
    if "encoder" in config.method:
        config.method.update(latent_dim=16, k=4, stages=(1000,), dims_per_stage=(16,))
        config.method.encoder.update(widths=(8, 8), attention=())
    config.train.update(total_steps=3, batch_size=8, log_every=1, checkpoint_every=100)
    config.train.update(train_settings)
    config.sampling.steps = 2
    config.tasks.reconstruct.update(num_images=8, grid_images=4, batch_size=8)
    config.tasks.interpolate.update(points=3, gif=False, invert_steps=0, batch_size=8)
    config.tasks.counterfactual.update(invert_steps=2, points=2, ranges=((1, 2),))
    config.tasks.manipulate.update(invert_steps=2, num_images=2, epochs=1, scales=(0.3,), promask=4)
    return config.lock()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(the DDPM's run, the DiTi's run that starts from it)."""
    folder = tmp_path_factory.mktemp("runs")
    base, diti = tiny(ddpm_digits), tiny(diti_digits, init_from=str(folder / "base"))
    train(build(base.method), Run.at(folder / "base", base), None)
    train(build(diti.method), Run.at(folder / "diti", diti), None)
    return folder / "base", folder / "diti"


def load(run, weights):
    return diffrep_jax.load(run, weights).variables["params"]


def test_a_frozen_network_is_bitwise_the_average_that_it_came_from(runs):
    base, diti = runs
    for params in ("ema", "live"):
        jax.tree.map(np.testing.assert_array_equal, load(diti, params)["unet"], load(base, "ema")["unet"])


def test_the_other_networks_have_moved(runs):
    method = build(run_config.load(runs[1]).method)
    start = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})["params"]
    end = load(runs[1], "live")
    for name in ("encoder", "gradient_estimator"):
        assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (start[name], end[name])), strict=True)), name


def test_nothing_is_averaged_or_kept_for_frozen_parameters():
    config = tiny(diti_digits)
    method = build(config.method)
    state = abstract_state(method, optimizer.build(config.optim, method), sharding.make_mesh())
    assert set(state.params) == {"unet", "gradient_estimator", "encoder"}
    assert set(state.ema["params"]) == {"gradient_estimator", "encoder"}
    size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    trained = size(state.ema["params"])
    assert trained == size(state.params) - size(state.params["unet"])
    assert 2 * trained <= size(state.opt_state) < 2 * trained + 10  # Adam's two moments, and counters


def test_no_gradient_is_computed_for_frozen_parameters():
    """Every leaf of the base passes through the step as it is, and its gradient is nowhere."""
    config = tiny(diti_digits)
    method = build(config.method)
    optim = optimizer.build(config.optim, method)
    step = make_train_step(method, optim, ema_decay=0.9, seed=0)
    state = create_state(method, optim, sharding.make_mesh(), 0)
    batch = {"image": jnp.zeros((8, 8, 8, 1))}
    grads = jax.jit(step)(state, batch)[1]
    assert np.isfinite(grads["grad_norm"])
    jaxpr = jax.make_jaxpr(step)(state, batch).jaxpr
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state)]
    for path, inside, outside in zip(paths, jaxpr.invars, jaxpr.outvars, strict=False):
        if path.startswith(".params['unet']"):
            assert inside is outside, path


def test_tasks_run_on_diti_unchanged(runs):
    config, model = run_config.load(runs[1]), diffrep_jax.load(runs[1])
    for name in ("reconstruct", "interpolate", "counterfactual", "manipulate"):
        task = tasks.build(name, config.tasks[name], {"data_dir": None})
        numbers = task.run(model, Run.at(runs[1], config))
        assert all(np.isfinite(value) for value in numbers.values())
        metrics = json.loads((runs[1] / name / "metrics.json").read_text())
        assert (metrics["sampler"], metrics["grid"], metrics["evaluations"]) == ("exponential", "uniform_lambda", 2)
    z = model.encode(np.zeros((3, 8, 8, 1), np.float32))
    out = model.decode(z, how=Sampling(grid="ddim_range", steps=2, eta=0.5))
    assert z.shape == (3, 16) and out.shape == (3, 8, 8, 1)
    images = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 8, 8, 1)).astype(np.float32)
    assert model.invert(images, how=Sampling(grid="ddim_range", steps=50)).shape == images.shape
    with pytest.raises(UserError, match="z has the shape"):
        model.invert(images, z[:2])


def test_a_run_without_codes_says_so(runs, tmp_path):
    """It opens, and makes images; what asks for codes is refused."""
    config, model = run_config.load(runs[0]), diffrep_jax.load(runs[0])
    assert model.generate(2).shape == (2, 8, 8, 1)
    images, z = np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 16), np.float32)
    questions = (
        lambda: model.encode(images),
        lambda: model.endpoint(z),
        lambda: model.decode(z),
        lambda: model.decode_generated(z),
        lambda: model.invert(images),
        lambda: model.encoded(images),
        lambda: model.denoise(images, 0.0, z, images),
        lambda: model.interpolate(images[0], images[0]),
        lambda: model.counterfactual(images[0], images[0], (0, 1)),
        lambda: model.fingerprint(),
        lambda: model.latent_dim,
    )
    for ask in questions:
        with pytest.raises(UserError, match="DDPM run has no codes"):
            ask()
    for name in ("counterfactual", "encode", "evaluate", "interpolate", "manipulate", "probe", "reconstruct"):
        with pytest.raises(UserError, match="DDPM run has no codes"):
            tasks.build(name, config.tasks[name], {}).run(model, Run.at(tmp_path, config))


def networks(run, config):
    return networks_of(str(run), build(config.method), sharding.make_mesh())


def test_init_from_names_what_does_not_fit(runs, tmp_path):
    base, _ = runs
    wide = tiny(diti_digits).unlock()
    wide.method.unet.width = 16
    with pytest.raises(UserError, match=r"init_from=.*another network: .*is \(.*\) there and \(.*\) here"):
        networks(base, wide)
    with pytest.raises(UserError, match="no run with a checkpoint; name the folder of a trained one"):
        networks(tmp_path, tiny(diti_digits))


def test_a_run_that_cannot_begin_leaves_nothing_behind(runs, tmp_path):
    """A later start, with the right base, is a first start."""
    config = tiny(diti_digits, init_from=str(tmp_path / "missing"))
    with pytest.raises(UserError, match="no run with a checkpoint; name the folder of a trained one"):
        train(build(config.method), Run.at(tmp_path / "run", config), None)
    assert not (tmp_path / "run" / CONFIG).exists()
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_a_frozen_network_needs_a_run_to_come_from():
    with pytest.raises(UserError, match="keeps unet frozen.*add --config.train.init_from=RUN"):
        networks("", tiny(diti_digits))
    assert networks("", tiny(ddpm_digits)) == {}


def test_init_from_refuses_other_heads_which_no_shape_tells(runs):
    config = tiny(diti_digits).unlock()
    config.method.unet.heads = 2
    with pytest.raises(UserError, match=r"another network: method.unet.heads is 1 there and 2 here"):
        networks(runs[0], config)
    config.method.unet.update(heads=1, dropout=0.3)  # that is for training
    whole = networks(runs[1], config)  # a DiTi
    assert set(whole) == {"unet", "gradient_estimator", "encoder"}
    jax.tree.map(np.testing.assert_array_equal, whole, load(runs[1], "ema"))


def test_a_run_that_has_begun_goes_on_and_begins_from_no_other(runs):
    before = load(runs[1], "live")
    config = run_config.load(runs[1]).unlock()
    train(build(config.method), Run.at(runs[1], config), None)  # all steps are made
    config.train.update(init_from="elsewhere", total_steps=5)
    with pytest.raises(UserError, match="init_from=elsewhere: .* has already begun, from '.*base'"):
        train(build(config.method), Run.at(runs[1], config), None)
    jax.tree.map(np.testing.assert_array_equal, load(runs[1], "live"), before)


def test_parts_of_a_tree():
    """Frozen ones, trained and averaged ones, and heads of a loss with a label of their own."""
    params = {"a": {"x": 1, "y": 2}, "b": {"x": 3}, "head": {"w": 4}}

    class Labels:
        def param_labels(self, params):
            return {"a": {"x": "train", "y": "frozen"}, "b": {"x": "frozen"}, "head": {"w": "ssl"}}

    kept = parameters.trained(Labels(), params)
    assert kept == {"a": {"x": 1}, "head": {"w": 4}}
    assert parameters.averaged(Labels(), params) == {"a": {"x": 1}}
    assert parameters.used(Labels(), params) == {"a": {"x": 1, "y": 2}, "b": {"x": 3}}
    assert parameters.part(params, like=kept) == kept
    whole = parameters.overlay(params, {"a": {"x": 9}})
    assert whole == {"a": {"x": 9, "y": 2}, "b": {"x": 3}, "head": {"w": 4}}


def test_shapes_are_those_of_what_init_makes():
    method = build(tiny(diti_digits).method)
    shapes = parameters.shapes(method)
    made = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))})
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes) == jax.tree.map(lambda x: (x.shape, x.dtype), made)
