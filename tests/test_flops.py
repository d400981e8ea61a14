"""`train.flops` against closed forms, against XLA's analysis of what it compiled for a CPU, and form against form."""

import jax
import jax.numpy as jnp
import pytest

from diffrep_jax.forms import plain, tracing_for
from diffrep_jax.methods.base import build
from diffrep_jax.methods.parameters import shapes
from diffrep_jax.models.attention import attention
from diffrep_jax.train.flops import flops
from diffrep_jax.train.step import example_keys
from tests.tiny import tiny_config

LAYOUT = ("NHWC", "HWIO", "NHWC")


def of(function, *shapes, dtype=jnp.float32):
    return flops(jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)))


def test_a_matmul():
    assert of(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (5, 7, 11), (5, 11, 13)) == 2 * 5 * 7 * 11 * 13


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_and_its_gradients_take_the_same(stride, groups):
    def conv(x, k):
        strides = (stride, stride)
        return jax.lax.conv_general_dilated(
            x, k, strides, [(1, 1)] * 2, dimension_numbers=LAYOUT, feature_group_count=groups
        )

    shapes = (3, 8, 8, 4), (3, 3, 4 // groups, 6)
    forward = 2 * 3 * (8 // stride) ** 2 * 6 * 9 * 4 // groups
    assert of(conv, *shapes) == forward
    both = of(lambda x, k: jax.vjp(conv, x, k)[1](jnp.ones((3, 8 // stride, 8 // stride, 6))), *shapes)
    assert both == 3 * forward  # vjp traces the value, too


def test_loops_and_branches():
    def turns(x):
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=6)[0]

    one = 2 * 4**3
    assert of(turns, (4, 4)) == 6 * one
    branch = lambda x: jax.lax.cond(x[0, 0] > 0, turns, lambda x: x @ x, x)  # noqa: E731
    assert of(branch, (4, 4)) == 6 * one
    assert of(jax.jit(turns), (4, 4)) == 6 * one


def test_attention_by_cudnn_counts_as_the_plain_one(cudnn):
    def gradient(q, k, v):
        return jax.grad(lambda *x: attention(*x).astype(jnp.float32).sum(), (0, 1, 2))(q, k, v)

    counts = []
    for context in (plain(), tracing_for("cuda")):
        with context:
            counts.append(of(gradient, *[(2, 16, 3, 8)] * 3, dtype=jnp.bfloat16))
    product = 2 * 2 * 3 * 16 * 16 * 8
    assert counts == [6 * product] * 2


def test_a_method_is_near_xlas_analysis_of_the_compiled_program():
    config = tiny_config()
    method = build(config.method)
    image = jax.ShapeDtypeStruct((2, method.image_size, method.image_size, method.channels), jnp.float32)

    def loss(variables, x0):
        keys = example_keys(0, jnp.zeros((), jnp.int32), 2)
        return method.loss(variables, {"image": x0}, keys, True)[0]

    with plain():
        traced = jax.jit(loss).trace(shapes(method), image)
    analysis = traced.lower().cost_analysis()
    assert flops(traced.jaxpr) == pytest.approx(analysis["flops"], rel=0.25)  # it counts additions, and no padding
