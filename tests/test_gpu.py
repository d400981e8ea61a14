"""On an accelerator: bf16 training and the kernels' agreement with the CPU. Skipped elsewhere (marker gpu)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dbae_celeba
from diffrep_jax import sharding
from diffrep_jax.methods.base import build
from diffrep_jax.train import optimizer
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import compile_step, make_train_step

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("optimized_file")]


def losses(dtype, steps=3, batch_size=16):
    """The first losses of the published CelebA64 model on random images."""
    config = dbae_celeba.get_config()
    config.method.dtype = dtype
    method, mesh = build(config.method), sharding.make_mesh()
    optim = optimizer.build(config.optim, method)
    state = create_state(method, optim, mesh, 0)
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, 64, 64, 3)).astype(np.float32)
    batch = sharding.put_batch({"image": images}, mesh)
    compiled = compile_step(make_train_step(method, optim, ema_decay=0.99, seed=0), state, batch, mesh)
    values = []
    for _ in range(steps):
        state, metrics = compiled(state, batch)
        values.append(float(metrics["loss"]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    return values


def test_bfloat16_trains_like_float32():
    np.testing.assert_allclose(losses("bfloat16"), losses("float32"), rtol=0.03)


def test_the_networks_agree_with_the_cpu():
    config = dbae_celeba.get_config()
    config.method.dtype = "float32"
    method = build(config.method)
    variables = method.init(jax.random.key(0), {"image": jnp.zeros((1, 64, 64, 3))})
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        answers = []
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            placed, x = jax.device_put((variables, images), device)
            z = jax.jit(method.encode)(placed, x)
            xT = jax.jit(lambda v, z: method.endpoint(v, z))(placed, z)
            out = jax.jit(lambda v, z, xT: method.denoiser(v, z, xT)(xT, jnp.asarray(0.5)))(placed, z, xT)
            answers.append([np.asarray(a) for a in (z, xT, out)])
    for ours, expected in zip(*answers, strict=True):
        assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected)
