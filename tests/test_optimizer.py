"""The clipping of gradients, by its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from diffrep_jax.errors import UserError
from diffrep_jax.train import optimizer


class Method:
    def param_labels(self, params):
        return {name: "frozen" if name == "base" else "train" for name in params}


def updates(grads, **settings):
    optim = optimizer.build(ConfigDict({"name": "sgd", "lr": 1.0, "ema_decay": 0.9} | settings), Method())
    return jax.jit(lambda grads: optim.update(grads, optim.init(grads), grads)[0])(grads)


@pytest.mark.parametrize(("size", "kept"), [(0.1, 1.0), (1.0, 0.5), (100.0, 0.005)])
def test_gradients_above_the_norm_are_scaled_to_it_as_one_vector(size, kept):
    """Of 3 and 4 the norm is 5; what is frozen does not count."""
    grads = {"a": jnp.full((), 3 * size), "b": jnp.full((1,), 4 * size), "base": jnp.full((), 1e6)}
    out = updates(grads, clip_norm=2.5)
    np.testing.assert_allclose([out["a"], out["b"][0]], [-3 * size * kept, -4 * size * kept], rtol=1e-6)
    assert out["base"] == 0


def test_without_a_norm_nothing_is_clipped():
    grads = {"a": jnp.full((2,), 1e4)}
    for settings in ({}, {"clip_norm": 0.0}):
        np.testing.assert_array_equal(updates(grads, **settings)["a"], [-1e4, -1e4])
    with pytest.raises(UserError, match="config.optim.clip_norm is -1.0; use a number from 0 on"):
        updates(grads, clip_norm=-1.0)


# --- rates that change, and decay


def steps_of(count, **settings):
    """What each of `count` updates adds, for a constant gradient of 1 and no memory of it (Adam's is sign-like)."""
    optim = optimizer.build(ConfigDict({"name": "adam", "lr": 2.0, "ema_decay": 0.9} | settings), Method())
    grads, added = {"a": jnp.ones(1)}, []
    state = optim.init(grads)
    for _ in range(count):
        out, state = optim.update(grads, state, grads)
        added.append(-float(out["a"][0]))
    return added


def test_a_rate_warms_up_and_falls_along_half_a_cosine():
    np.testing.assert_allclose(steps_of(5, warmup_steps=4), [0.5, 1, 1.5, 2, 2], rtol=1e-3)
    falling = steps_of(7, decay_steps=4, decay_to=0.1)
    np.testing.assert_allclose([falling[0], falling[2], *falling[4:]], [2, 1.1, 0.2, 0.2, 0.2], rtol=1e-3)
    torch = [2.0, 0.2 + 0.9 * (1 + np.cos(np.pi / 4)), 1.1]  # CosineAnnealingLR(T_max=4, eta_min=0.2)
    np.testing.assert_allclose(falling[:3], torch, rtol=1e-3)
    np.testing.assert_allclose(steps_of(3), [2, 2, 2], rtol=1e-3)
    with pytest.raises(UserError, match="config.optim.warmup_steps is -1; use a whole number from 0 on"):
        steps_of(1, warmup_steps=-1)


def test_sgd_takes_weight_decay_as_part_of_the_gradient():
    """As PyTorch: v <- 0.9 v + (g + decay p), p <- p - lr v."""
    optim = optimizer.build(ConfigDict({"name": "sgd", "lr": 0.5, "ema_decay": 0.9, "weight_decay": 0.1}), Method())
    params, state, p, v = {"a": jnp.full(1, 3.0)}, None, 3.0, 0.0
    state = optim.init(params)
    for _ in range(3):
        out, state = optim.update({"a": jnp.ones(1)}, state, params)
        params = {"a": params["a"] + out["a"]}
        v = 0.9 * v + 1 + 0.1 * p
        p -= 0.5 * v
        np.testing.assert_allclose(params["a"], p, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"warmup_step": 4}, "Unknown field 'warmup_step' in config.optim. Did you mean 'warmup_steps'"),
        ({"ssl": {"name": "sgd", "lr": 1.0, "wieght_decay": 0.1}}, "Unknown field 'wieght_decay' in config.optim.ssl"),
    ],
)
def test_an_unknown_field_is_refused_and_not_passed_over(settings, message):
    with pytest.raises(UserError, match=message):
        updates({"a": jnp.ones(1)}, **settings)
