"""Joined small leaves: no number changes, one CPU device alone has them, runs may move, fsdp has few collectives."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrep_jax import config as configs
from diffrep_jax import sharding
from diffrep_jax.methods.base import Base
from diffrep_jax.runs import checkpoint
from diffrep_jax.train import joined, optimizer
from diffrep_jax.train.state import TrainState, abstract_state, create_state, laid_out_as
from tests.tiny import run_python

pytestmark = pytest.mark.usefixtures("optimized_file")
ADAM = configs.ConfigDict({"name": "adam", "lr": 0.1, "ema_decay": 0.9})


class Labels(Base):
    """A method whose leaf w is frozen."""

    def param_labels(self, params):
        return {name: "frozen" if name == "w" else "train" for name in params}


@pytest.fixture
def tree(monkeypatch):
    """Draws trees with large and small leaves, sizes on both sides of the limit."""
    monkeypatch.setattr(joined, "SMALL", 10)
    random = np.random.default_rng(0)
    shapes = {"a": (2, 3), "b": (4, 5), "c": (), "w": (3,), "d": (2, 6)}

    def draw():
        return {name: jnp.asarray(random.standard_normal(shape), jnp.float32) for name, shape in shapes.items()}

    return draw


@pytest.mark.parametrize("form", [joined.SMALL_JOINED, joined.LEAF_BY_LEAF], ids=["joined", "leaf by leaf"])
def test_adam_is_optaxs_leaf_by_leaf(tree, form):
    ours, plain, params = optimizer.build(ADAM, Labels(), form), optax.adam(0.1), tree()
    state, expected_state = ours.init(params), plain.init(params)
    for _ in range(3):
        grads = tree()
        updates, state = ours.update(grads, state, params)
        expected, expected_state = plain.update(grads, expected_state, params)
        for name in params:
            np.testing.assert_array_equal(updates[name], 0 * expected[name] if name == "w" else expected[name], name)


def test_both_forms_map_and_group_the_same_elements(tree):
    a, b, form = tree(), tree(), joined.SMALL_JOINED
    added = form.map(jnp.subtract, a, b)
    assert {name: leaf.shape for name, leaf in added.items()} == {name: leaf.shape for name, leaf in a.items()}
    for name in a:
        np.testing.assert_array_equal(added[name], np.asarray(a[name]) - np.asarray(b[name]))
    assert [leaf.size for leaf in jax.tree.leaves(form.grouped(a))] == [20, 12, 10]
    np.testing.assert_allclose(optax.global_norm(form.grouped(a)), optax.global_norm(a), rtol=1e-6)


class Toy(Labels):
    """A method that a state can be made of."""

    image_size, channels = 4, 1

    def __init__(self, draw):
        self._draw = draw

    def init(self, rng, batch):
        return {"params": self._draw(), "batch_stats": {}}


def test_a_state_moves_between_the_layouts_and_back(tree, tmp_path):
    """By a checkpoint, as when a run goes on elsewhere: the moments of each parameter are what they were."""
    method, mesh = Toy(tree), sharding.make_mesh()
    forms = (joined.SMALL_JOINED, joined.LEAF_BY_LEAF)
    optims = [optimizer.build(ADAM, method, form) for form in forms]
    templates = [abstract_state(method, optim, mesh) for optim in optims]
    state = create_state(method, optims[0], mesh, 0)
    grads = {name: leaf for name, leaf in tree().items() if name != "w"}
    _, opt_state = optims[0].update(grads, state.opt_state)
    state = dataclasses.replace(state, opt_state=opt_state)
    with checkpoint.opened(tmp_path, writer=True) as checkpoints:
        checkpoints.save(1, state.parts())
    with checkpoint.opened(tmp_path, writer=True) as checkpoints:
        layouts = [checkpoints.has_layout("opt_state", template.opt_state) for template in templates]
        assert layouts == [True, False]
        moved = laid_out_as(TrainState(**checkpoints.restore(templates[0].parts())), templates[1])
        checkpoints.save(2, moved.parts())
    with checkpoint.opened(tmp_path) as checkpoints:
        layouts = [checkpoints.has_layout("opt_state", template.opt_state) for template in templates]
        assert layouts == [False, True]
    moments = optax.tree.get(moved.opt_state, "mu")
    for name, grad in grads.items():
        np.testing.assert_allclose(moments[name], 0.1 * grad, rtol=1e-6)
    back = laid_out_as(moved, templates[0])
    assert jax.tree.structure(back.opt_state) == jax.tree.structure(opt_state)
    jax.tree.map(np.testing.assert_array_equal, back.opt_state, opt_state)
    assert laid_out_as(back, templates[0]) is back


def test_the_mesh_decides():
    if jax.devices()[0].platform == "cpu":
        one = sharding.make_mesh(devices=jax.devices()[:1])
        assert joined.elementwise(one) is joined.SMALL_JOINED

    def mesh(platform, size):
        device = type("Device", (), {"platform": platform})()
        return type("Mesh", (), {"size": size, "devices": np.full((size, 1), device)})()

    for platform, size in (("cpu", 4), ("gpu", 1), ("tpu", 1), ("gpu", 8)):
        assert joined.elementwise(mesh(platform, size)) is joined.LEAF_BY_LEAF


COLLECTIVES = """
import jax, numpy as np
from diffrep_jax.methods.base import build
from diffrep_jax import sharding
from diffrep_jax.train import joined, optimizer
from diffrep_jax.train.state import abstract_state
from diffrep_jax.train.step import compile_step, make_train_step
from tests.tiny import tiny_config
config = tiny_config()
method, mesh = build(config.method), sharding.make_mesh(fsdp=4)
form = joined.elementwise(mesh)
optim = optimizer.build(config.optim, method, form)
state = abstract_state(method, optim, mesh)
batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), np.uint8, sharding=sharding.batch_sharding(mesh))}
step = make_train_step(method, optim, ema_decay=0.9, seed=0, elementwise=form)
compiled = compile_step(step, state, batch, mesh)
analysis = compiled.memory_analysis()
print(compiled.as_text())
share = sum(int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(state))
print(analysis.alias_size_in_bytes, analysis.argument_size_in_bytes - 8 * 8 * 8 // 4, share)
"""


@pytest.mark.slow
def test_fsdp_has_collectives_for_what_is_split_and_no_more():
    """Joined leaves had more than a thousand. What is joined belongs to a network: its features, not its parameters."""
    hlo = run_python(COLLECTIVES, devices=4, flags="--xla_backend_optimization_level=0")
    names = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    collectives = re.findall(rf"= .*? ({names})(?:-start)?\(", hlo)
    assert "all-gather" in collectives  # of the parameters that are split
    assert len(collectives) <= 100
    joining = re.findall(r' concatenate\(.*op_name="([^"]*)"', hlo)
    assert joining and all("jvp(" in name for name in joining)
    # The new state takes the old one's place, but for what the step does not read of it (v of the spectral norms).
    donated, read, state = map(int, hlo.splitlines()[-1].split())
    assert donated == read > 0.99 * state
