"""On an accelerator: training in bfloat16, each form's agreement with the plain one and the CPU, the command as people
call it. Skipped elsewhere (marker gpu)."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dbae_celeba
from diffrep_jax import forms, sharding
from diffrep_jax.methods.base import build
from diffrep_jax.models.attention import attention, fused_is_here
from diffrep_jax.models.normalization import group_norm
from diffrep_jax.train import devices, optimizer
from diffrep_jax.train.state import create_state
from diffrep_jax.train.step import compile_step, make_train_step

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("optimized_file")]


def small_config(dtype, outer_dtype="float32"):
    """CelebA's model, of 32 x 32 pixels and two levels: with attention of a size that cuDNN has."""
    config = dbae_celeba.get_config()
    config.data.image_size = 32
    config.method.update(dtype=dtype, outer_dtype=outer_dtype, latent_dim=64)
    config.method.unet.update(mult=(1, 2), blocks=1, attention=(16,))
    config.method.encoder.update(mult=(1, 2), blocks=1, attention=(16,))
    config.method.generator.update(width=16)
    return config


def losses(config, steps=3, batch_size=16):
    """The first losses of a model on random images."""
    method, mesh = build(config.method), sharding.make_mesh()
    optim = optimizer.build(config.optim, method)
    state = create_state(method, optim, mesh, 0)
    images = np.random.default_rng(0).uniform(-1, 1, (batch_size, 32, 32, 3)).astype(np.float32)
    batch = sharding.put_batch({"image": images}, mesh)
    compiled = compile_step(make_train_step(method, optim, ema_decay=0.99, seed=0), state, batch, mesh)
    values = []
    for _ in range(steps):
        state, metrics = compiled(state, batch)
        values.append(float(metrics["loss"]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state.params))
    return values


def test_bfloat16_trains_like_float32():
    expected = losses(small_config("float32"))
    np.testing.assert_allclose(losses(small_config("bfloat16")), expected, rtol=0.03)
    np.testing.assert_allclose(losses(small_config("bfloat16", "bfloat16")), expected, rtol=0.03)


def test_the_networks_agree_with_the_cpu():
    method = build(small_config("float32").method)
    variables = method.init(jax.random.key(0), {"image": jnp.zeros((1, 32, 32, 3))})
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
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


def value_and_gradient(function, arrays, platform):
    def run(*arrays):
        out, pull = jax.vjp(function, *arrays)
        return out, *pull(jnp.cos(jnp.arange(out.size)).reshape(out.shape).astype(out.dtype))

    with forms.tracing_for(platform):
        return jax.jit(run)(*arrays)


@pytest.mark.parametrize("layer", ["attention", "group norm"])
def test_the_forms_for_gpus_are_the_plain_ones_in_bfloat16(layer):
    """And as near to the plain form in float32 as that in bfloat16 is, or twice."""
    rng = np.random.default_rng(0)
    if layer == "attention":
        if forms.platform_of(jax.devices()[0]) != "cuda":
            pytest.skip("cuDNN is NVIDIA's")
        assert fused_is_here()
        function, shapes = attention, [(4, 256, 2, 64)] * 3
    else:
        function = functools.partial(group_norm, groups=32, silu=True)
        shapes = [(4, 32, 32, 128), (4, 128), (4, 128)]
    exact = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    narrow = [x.astype(jnp.bfloat16) if layer == "attention" or x.ndim == 4 else x for x in exact]
    wide = [x.astype(jnp.float32) for x in narrow]
    with jax.default_matmul_precision("highest"):
        expected = value_and_gradient(function, wide, "any")
    results = [value_and_gradient(function, narrow, platform) for platform in ("cuda", "any")]
    for ours, plain, right in zip(*results, expected, strict=True):
        assert ours.dtype == plain.dtype
        off, as_plain = (float(jnp.linalg.norm(x.astype(jnp.float32) - right)) for x in (ours, plain))
        assert off < 2 * as_plain + 2e-3 * float(jnp.linalg.norm(right))


def test_a_training_by_the_command(tmp_path):
    """It starts, says its share of the peak, goes on where it was, and reconstructs."""
    command = [sys.executable, "launch/main.py", "--config=configs/dbae_digits.py", f"--workdir={tmp_path / 'run'}"]
    small = ["--config.method.dtype=bfloat16", "--config.train.log_every=5", "--config.train.checkpoint_every=10"]
    for steps in (10, 20):
        done = subprocess.run([*command, *small, f"--config.train.total_steps={steps}"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [5, 10, 15, 20]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)
    if devices.of_kind(jax.devices()[0].device_kind):
        assert any(0 < row.get("mfu", 0) < 1 for row in rows)
    done = subprocess.run([*command, "--task=reconstruct"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
