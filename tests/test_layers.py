"""Layers against other libraries; dropout's law and its keys."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.signal import correlate2d

from diffrep_jax.models import layers
from diffrep_jax.models.convolution import upsample
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import UNet
from tests.networks import KEY, normal, random_values


@pytest.mark.parametrize("channels, groups", [(64, 32), (48, 16), (8, 8)])
def test_group_norm_has_32_groups_or_as_many_as_divide_the_channels(channels, groups):
    params = {"scale": 1 + normal(channels, seed=2), "bias": normal(channels, seed=3)}
    x = 0.05 * normal(2, 6, 5, channels) + 0.1
    expected = nn.GroupNorm(num_groups=groups, epsilon=1e-5).apply({"params": params}, x)
    np.testing.assert_allclose(layers.GroupNorm().apply({"params": params}, x), expected, atol=1e-4)


def test_group_norm_is_scaled_by_one_plus_the_first_half_and_shifted_by_the_second():
    x, gain, shift = normal(2, 4, 4, 8), normal(2, 8, seed=2), normal(2, 8, seed=3)
    params = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    plain = layers.GroupNorm().apply(params, x)
    modulated = layers.GroupNorm().apply(params, x, jnp.concatenate([gain, shift], -1))
    for row in range(2):
        np.testing.assert_allclose(modulated[row], plain[row] * (1 + gain[row]) + shift[row], atol=1e-6)


def test_attention_splits_heads_before_q_k_v_and_adds_its_projection():
    heads, dim, x = 2, 4, normal(2, 3, 3, 8)
    module = layers.Attention(heads)
    params = random_values(initialize(module, KEY, x))["params"]
    normed = nn.GroupNorm(num_groups=8, epsilon=1e-5).apply({"params": params["norm"]}, x).reshape(2, 9, 8)
    qkv = normed @ params["qkv"]["kernel"][0, 0] + params["qkv"]["bias"]
    # head i holds the channels [3 dim i, 3 dim (i + 1)): its q, its k, its v
    parts = [[qkv[..., 3 * dim * i + dim * j :][..., :dim] for i in range(heads)] for j in range(3)]
    mixed = jax.nn.dot_product_attention(*(jnp.stack(part, axis=2) for part in parts)).reshape(2, 9, 8)
    expected = x + (mixed @ params["proj"]["kernel"][0, 0] + params["proj"]["bias"]).reshape(x.shape)
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("size", [3, 1])
def test_convolution_is_scipys_correlation_with_zeros_outside(size):
    x = normal(2, 8, 6, 3)
    module = layers.Conv(4, size)
    params = random_values(initialize(module, KEY, x))["params"]
    out = module.apply({"params": params}, x)
    assert out.shape == (2, 8, 6, 4)
    for n in range(2):
        for f in range(4):
            maps = [correlate2d(x[n, :, :, c], params["kernel"][:, :, c, f], mode="same") for c in range(3)]
            np.testing.assert_allclose(out[n, :, :, f], sum(maps) + params["bias"][f], atol=1e-5)


def test_dense_is_a_matrix_product():
    x = normal(5, 3)
    params = {"kernel": normal(3, 2, seed=2), "bias": normal(2, seed=3)}
    expected = np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])
    np.testing.assert_allclose(layers.Dense(2).apply({"params": params}, x), expected, atol=1e-5)


def test_resampling_repeats_pixels_and_averages_blocks():
    x = np.asarray(normal(2, 4, 6, 3))
    up = upsample(jnp.asarray(x))
    for n in range(2):
        for c in range(3):
            np.testing.assert_array_equal(up[n, :, :, c], np.kron(x[n, :, :, c], np.ones((2, 2))).astype(np.float32))
    down = layers.downsample(jnp.asarray(x))
    assert down.shape == (2, 2, 3, 3)
    np.testing.assert_allclose(down[1, 1, 2, 0], np.mean([x[1, i, j, 0] for i in (2, 3) for j in (4, 5)]), rtol=1e-6)
    np.testing.assert_allclose(layers.downsample(up), x, rtol=1e-6)


def test_time_embedding_is_cosines_then_sines_at_falling_frequencies():
    np.testing.assert_allclose(layers.time_embedding(jnp.zeros(1), 6)[0], [1, 1, 1, 0, 0, 0], atol=1e-7)
    width, t = 8, jnp.asarray([0.25, -2302.585])
    cosines, sines = np.split(np.asarray(layers.time_embedding(t, width), np.float64), 2, axis=1)
    for i, frequency in enumerate((1, 0.1, 0.01, 0.001)):
        np.testing.assert_allclose(cosines[:, i], np.cos(frequency * np.asarray(t, np.float64)), atol=3e-4)
        np.testing.assert_allclose(sines[:, i], np.sin(frequency * np.asarray(t, np.float64)), atol=3e-4)


# --- dropout


def test_dropout_zeroes_at_its_rate_and_keeps_the_mean():
    keys = jax.random.split(KEY, 8)
    out = np.asarray(layers.dropout(jnp.full((8, 32, 32, 8), 2.0), 0.2, keys))
    values, counts = np.unique(out, return_counts=True)
    np.testing.assert_allclose(values, [0, 2.5])
    assert abs(counts[0] / out.size - 0.2) < 5 * math.sqrt(0.2 * 0.8 / out.size)
    assert len({out[i].tobytes() for i in range(8)}) == 8  # a mask for each example


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.999])
def test_dropout_is_one_coin_an_element_of_exactly_its_rate(rate):
    """No rate but 0.5 is a number of 256ths: off by a rounding, 0.1 would be 90 standard deviations off."""
    shape = (2048, 12, 12, 10)
    dropped = np.asarray(jax.jit(layers.dropout, static_argnums=1)(jnp.ones(shape), rate, jax.random.split(KEY, 2048)))
    dropped = (dropped == 0).astype(np.float32)
    std, n = math.sqrt(rate * (1 - rate)), dropped.size
    # The mean of an example's coin is one of two numbers 1/256 apart: 5 standard deviations with that, too.
    assert abs(dropped.mean() - rate) < 5 * math.hypot(std / math.sqrt(n), 1 / 512 / math.sqrt(len(dropped)))
    z = (dropped - rate) / std
    pairs = {"examples": z[::2] * z[1::2], "pixels": z[:, ::2] * z[:, 1::2], "channels": z[..., ::2] * z[..., 1::2]}
    for name, product in pairs.items():  # uncorrelated, and a large number of them; the two numbers make 4e-6 / std^2
        assert abs(product.mean()) < 5 / math.sqrt(product.size) + 4e-6 / std**2, name
    assert len(np.unique(dropped.reshape(2048, -1), axis=0)) == 2048 or rate in (0.001, 0.999)


def test_dropout_scales_bfloat16_by_one_over_the_part_that_is_kept():
    """1 - rate as a bfloat16 is 0.2 % off, which all values would share; roundings of single values cancel."""
    x = normal(64, 16, 16, 8).astype(jnp.bfloat16)
    out = layers.dropout(x, 0.1, jax.random.split(KEY, 64)).astype(jnp.float32)
    x = np.asarray(x, np.float32) * (out != 0)
    assert abs((out * x).sum() / (x * x).sum() * 0.9 - 1) < 1e-4


def test_dropout_of_an_example_does_not_depend_on_its_batch():
    keys, x = jax.random.split(KEY, 4), normal(4, 4, 4, 2)
    rows = jnp.asarray([2, 0])
    whole = layers.dropout(x, 0.5, keys)
    np.testing.assert_array_equal(layers.dropout(x[rows], 0.5, keys[rows]), whole[rows])


def test_dropout_without_keys_or_rate_is_the_identity():
    x = normal(2, 4, 4, 2)
    np.testing.assert_array_equal(layers.dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(layers.dropout(x, 0.0, jax.random.split(KEY, 2)), x)
    half = layers.dropout(x.astype(jnp.bfloat16), 0.5, jax.random.split(KEY, 2))
    assert half.dtype == jnp.bfloat16


def test_every_block_of_the_unet_draws_its_own_mask(monkeypatch):
    x, t, z, used = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2), jnp.zeros((2, 5)), []
    unet = UNet(1, 4, (1, 2), 1, (), 4, dropout=0.3)
    params = initialize(unet, KEY, x, t, x, z)
    monkeypatch.setattr(layers, "dropout", lambda h, rate, keys: (used.append(keys), h)[1])

    @jax.jit
    def keys_used(keys):
        unet.apply(params, x, t, x, z, keys)
        return [jax.random.key_data(k) for k in used]

    keys = np.asarray(keys_used(jax.random.split(KEY, 2)))
    assert len(np.unique(keys.reshape(-1, keys.shape[-1]), axis=0)) == len(keys) * 2 == 20  # ten blocks, two examples


def test_dropout_reaches_the_unets_output_only_through_its_keys():
    x, t, z = normal(2, 8, 8, 1), jnp.asarray([0.1, 0.2]), normal(2, 5)
    unet = UNet(1, 4, (1,), 1, (), 4, dropout=0.3)
    params = random_values(initialize(unet, KEY, x, t, x, z))
    run = jax.jit(lambda keys: unet.apply(params, x, t, x, z, keys))
    first, second = run(jax.random.split(KEY, 2)), run(jax.random.split(jax.random.key(9), 2))
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(run(jax.random.split(KEY, 2)), first)
    assert np.abs(run(None) - first).max() > 1e-3
