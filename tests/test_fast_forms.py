"""Convolution, attention and group norm: the fast forms and their hand-written gradients against the plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffrep_jax.models.attention import attention
from diffrep_jax.models.convolution import conv, upsample, upsample_conv
from diffrep_jax.models.normalization import group_norm


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))


def plain_conv(x, kernel):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def assert_same_function(ours, plain, *arguments, tolerance=1e-9):
    """Values and all gradients, for a random direction of the output."""
    out, pull = jax.vjp(ours, *arguments)
    expected, expected_pull = jax.vjp(plain, *arguments)
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    direction = draw(*out.shape, seed=1)
    for ours_, plain_ in zip(pull(direction), expected_pull(direction), strict=True):
        np.testing.assert_allclose(ours_, plain_, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 1), (4, 8, 3), (8, 8, 3), (7, 5, 3), (16, 12, 3)])
def test_conv_is_the_convolution(height, width, size, x64):
    assert_same_function(conv, plain_conv, draw(2, height, width, 5), draw(size, size, 5, 7))


def test_conv_of_one_pixel_meets_numpy(x64):
    """Independent of XLA: the sum over the window, written out."""
    x, kernel = np.asarray(draw(1, 4, 4, 2)), np.asarray(draw(3, 3, 2, 3))
    window = x[0, 1:4, 0:3]
    np.testing.assert_allclose(conv(x, kernel)[0, 2, 1], np.einsum("hwi,hwio->o", window, kernel), rtol=1e-12)


@pytest.mark.parametrize(("height", "width", "size"), [(4, 4, 3), (8, 8, 3), (9, 11, 3), (8, 8, 1)])
def test_upsample_conv_is_both_in_turn(height, width, size, x64):
    def plain(x, kernel):
        return plain_conv(x.repeat(2, axis=1).repeat(2, axis=2), kernel)

    assert_same_function(upsample_conv, plain, draw(2, height, width, 3), draw(size, size, 3, 4))


def test_upsample_repeats_pixels():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(x), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("t", "heads", "dim"), [(16, 1, 8), (9, 3, 4), (64, 2, 16)])
def test_attention_is_jaxs_own(t, heads, dim, x64):
    q, k, v = (3 * draw(2, t, heads, dim, seed=i) for i in range(3))
    # JAX's softmax is in float32 whatever the type of its inputs
    assert_same_function(attention, jax.nn.dot_product_attention, q, k, v, tolerance=2e-5)


def test_attention_survives_large_logits():
    q = 1e3 * draw(1, 4, 1, 8).astype(jnp.float32)
    out, grads = jax.value_and_grad(lambda q: attention(q, q, q).sum())(q)
    assert np.isfinite(out) and np.isfinite(grads).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_attention_computes_in_float32_and_keeps_the_type(dtype):
    q, k, v = (draw(2, 64, 2, 16, seed=i).astype(dtype) for i in range(3))
    out = attention(q, k, v)
    exact = jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert out.dtype == dtype
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=2e-2 if dtype == "bfloat16" else 1e-5)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (6, 1), (4, 4)])
def test_group_norm_is_flaxs_with_a_gain_and_a_bias_an_image(channels, groups, silu, x64):
    x, gain, bias = 2 + 3 * draw(3, 4, 5, channels), draw(3, channels, seed=2), draw(3, channels, seed=3)

    def plain(x, gain, bias):
        module = nn.GroupNorm(groups, epsilon=1e-5, use_scale=False, use_bias=False, use_fast_variance=False)
        u = module.apply({}, x) * gain[:, None, None] + bias[:, None, None]
        return jax.nn.silu(u) if silu else u

    assert_same_function(lambda x, g, b: group_norm(x, g, b, groups, silu), plain, x, gain, bias)


def test_group_norm_does_not_cancel():
    """A large common offset: E[x^2] - E[x]^2 would have no digit left in float32."""
    x = draw(2, 8, 8, 8).astype(jnp.float32)
    ones, zeros = jnp.ones((2, 8)), jnp.zeros((2, 8))
    np.testing.assert_allclose(group_norm(x + 4096, ones, zeros, 2), group_norm(x, ones, zeros, 2), atol=5e-3)


def test_group_norm_of_bfloat16_computes_in_float32():
    x = draw(2, 8, 8, 8).astype(jnp.bfloat16)
    ones, zeros = jnp.ones((2, 8), jnp.float32), jnp.zeros((2, 8), jnp.float32)
    out = group_norm(x, ones, zeros, 2)
    assert out.dtype == jnp.bfloat16
    exact = group_norm(x.astype(jnp.float32), ones, zeros, 2)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-8, atol=1e-3)
