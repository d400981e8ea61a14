"""Joined small leaves: no number and no layout changes, one CPU device alone has them, fsdp has few collectives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffrep_jax import config as configs
from diffrep_jax import sharding
from diffrep_jax.train import joined, optimizer
from tests.tiny import run_python

ADAM = configs.ConfigDict({"name": "adam", "lr": 0.1, "ema_decay": 0.9})


class Labels:
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


@pytest.mark.parametrize("form", [joined.SmallJoined(), joined.LEAF_BY_LEAF], ids=["joined", "leaf by leaf"])
def test_adam_is_optaxs_leaf_by_leaf(tree, form):
    ours, plain, params = optimizer.build(ADAM, Labels(), form), optax.adam(0.1), tree()
    state, expected_state = ours.init(params), plain.init(params)
    for _ in range(3):
        grads = tree()
        updates, state = ours.update(grads, state, params)
        expected, expected_state = plain.update(grads, expected_state, params)
        for name in params:
            np.testing.assert_array_equal(updates[name], 0 * expected[name] if name == "w" else expected[name], name)
    moments = optax.tree.get(state.inner_states["train"].inner_state, "nu")
    np.testing.assert_array_equal(moments["d"], optax.tree.get(expected_state, "nu")["d"])


def test_both_forms_map_and_group_the_same_elements(tree):
    a, b, form = tree(), tree(), joined.SmallJoined()
    added = form.map(jnp.subtract, a, b)
    assert {name: leaf.shape for name, leaf in added.items()} == {name: leaf.shape for name, leaf in a.items()}
    for name in a:
        np.testing.assert_array_equal(added[name], np.asarray(a[name]) - np.asarray(b[name]))
    assert [leaf.size for leaf in jax.tree.leaves(form.grouped(a))] == [20, 12, 10]
    np.testing.assert_allclose(optax.global_norm(form.grouped(a)), optax.global_norm(a), rtol=1e-6)


def test_the_state_has_one_layout_whatever_the_form(tree):
    """So that a run may move from a CPU to a mesh."""
    states = [
        optimizer.build(ADAM, Labels(), form).init(tree()) for form in (joined.SmallJoined(), joined.LEAF_BY_LEAF)
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])


def test_a_state_in_the_layout_of_earlier_checkpoints_comes_back(tree):
    """There, every optimizer's moments were {"large": [...], "small": one vector}, without the frozen leaves."""
    params = tree()
    ours = optimizer.build(ADAM, Labels())
    _, state = ours.update(tree(), ours.init(params), params)
    earlier = joined.join_state(state)
    moments = earlier.inner_states["train"].inner_state[0].mu
    assert set(moments) == {"large", "small"} and [leaf.shape for leaf in moments["large"]] == [(4, 5), (2, 6)]
    assert moments["small"].shape == (7,)
    template = jax.eval_shape(joined.join_state, jax.eval_shape(ours.init, params))
    assert jax.tree.map(jnp.shape, template) == jax.tree.map(jnp.shape, earlier)
    back = joined.split_state(earlier, jax.eval_shape(ours.init, params))
    assert jax.tree.structure(back) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, back, state)


def test_the_mesh_decides():
    if jax.devices()[0].platform == "cpu":
        one = sharding.make_mesh(devices=jax.devices()[:1])
        assert isinstance(joined.elementwise(one), joined.SmallJoined)

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
batch = {"image": jax.ShapeDtypeStruct((8, 8, 8, 1), np.float32, sharding=sharding.batch_sharding(mesh))}
step = make_train_step(method, optim, ema_decay=0.9, seed=0, elementwise=form)
print(compile_step(step, state, batch, mesh).as_text())
"""


@pytest.mark.slow
def test_fsdp_has_collectives_for_what_is_split_and_no_more():
    """Joined leaves had more than a thousand."""
    hlo = run_python(COLLECTIVES, devices=4, flags="--xla_backend_optimization_level=0")
    names = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    collectives = re.findall(rf"= .*? ({names})(?:-start)?\(", hlo)
    assert "all-gather" in collectives  # of the parameters that are split
    assert len(collectives) <= 100
