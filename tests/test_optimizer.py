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
    with pytest.raises(UserError, match="config.optim.clip_norm -1.0 is below 0; 0 clips nothing"):
        updates(grads, clip_norm=-1.0)
