"""What a training step is on a GPU and a TPU, read off the lowered program: no accelerator is needed.

Each property has a wrong form that it is shown to catch.
"""

import functools

import jax
import jax.numpy as jnp
import pytest

from diffrep_jax import forms
from diffrep_jax.methods.base import build
from diffrep_jax.models import attention, convolution, layers, normalization, unet
from diffrep_jax.train import cost
from diffrep_jax.train.joined import SMALL_JOINED
from tests import lowered
from tests.tiny import tiny_config

TOKENS = 100  # at the images' 10 x 10; no other axis is as long


def small(outer_dtype="float32"):
    config = tiny_config().unlock()
    config.data.image_size = 20
    config.method.update(dtype="bfloat16", outer_dtype=outer_dtype)
    config.method.unet.update(width=8, mult=(1, 2), attention=(10,), head_dim=8)
    config.method.encoder.update(width=8, mult=(1, 2), attention=(10,))
    return config.lock()


@functools.cache
def lower_step(platform, outer_dtype="float32"):
    config = small(outer_dtype)
    step, state, batch = cost.on_one_device(build(config.method), config, 4)
    with forms.tracing_for(platform):
        traced = jax.jit(step, donate_argnums=0).trace(state, batch)
    return traced.lower(lowering_platforms=(platform,))


@pytest.fixture(scope="module", params=["cuda", "tpu"])
def step(request, cudnn_file):
    """(the platform, the operations of a bfloat16 training step)."""
    return request.param, lowered.operations(lower_step(request.param))


def test_the_torso_computes_in_bfloat16_and_sums_in_float32(step):
    _, ops = step
    assert len(lowered.convolutions(lowered.inside(ops, "UNet"))) > 60  # 3 a layer
    assert not lowered.float32_convolutions(ops)
    assert not lowered.narrow_sums(ops)
    heads = [op for op in lowered.convolutions(ops) if lowered.HEAD in op.scope]
    assert len(heads) == 3 and all(kind == "f32" for op in heads for kind, _ in op.takes + op.gives)
    norms = [op for op in lowered.inside(ops, "UNet") if op.name == "stablehlo.rsqrt"]
    assert len(norms) > 10 and all(op.takes[0][0] == "f32" for op in norms)


def test_encoder_and_generator_compute_in_float32_or_but_for_the_image_in_bfloat16(cudnn_file):
    for outer_dtype, expected in (("float32", {"f32"}), ("bfloat16", {"bf16"})):
        ops = lowered.operations(lower_step("cuda", outer_dtype))
        assert not lowered.narrow_sums(ops)
        for net, part in (("HalfUNet", "/"), ("Generator", "/up")):  # its last layer is no part of "up"
            inner = [op for op in lowered.convolutions(lowered.inside(ops, net)) if part in op.scope.split(net)[1]]
            assert len(inner) >= 6 and {kind for op in inner for kind, _ in op.takes} == expected


def test_nothing_is_looked_up_by_index(step):
    assert not lowered.indexed(step[1])


def test_no_parameters_are_joined(step):
    assert not lowered.joined(step[1])


def test_images_stay_as_they_lie(step):
    assert not lowered.transposed_around_convolutions(step[1])


def test_attention_of_the_unet_keeps_no_weights_on_a_gpu(step):
    platform, ops = step
    calls = [op for op in lowered.inside(ops, "UNet") if op.name == "stablehlo.custom_call"]
    weights = lowered.square_arrays(ops, TOKENS, "UNet")
    if platform == "cuda":
        assert len(calls) == 2 * 4 and not weights  # forward and backward
    else:
        assert not calls and weights
    assert lowered.square_arrays(ops, TOKENS, "HalfUNet")  # the encoder's float32 is not for cuDNN


def test_images_arrive_as_bytes_and_the_state_gives_its_place(step):
    *state, image = lowered.arguments(lower_step(step[0]))
    assert image == ("ui8", (4, 20, 20, 1), False)
    assert all(donated for _, _, donated in state)


# --- the checks see what they are for


def lower_unet(dtype="bfloat16", mult=(1,)):
    """The gradient of a small U-Net on a GPU."""
    x, t = jnp.zeros((4, 10, 10, 1)), jnp.zeros(4)
    module = unet.UNet(1, 8, mult, 1, (10,), 8, dropout=0.1, dtype=jnp.dtype(dtype))
    with forms.tracing_for("cuda"):
        params = jax.eval_shape(lambda: module.init(jax.random.key(0), x, t))
        traced = jax.jit(jax.grad(lambda p: (module.apply(p, x, t) ** 2).sum())).trace(params)
    return lowered.operations(traced.lower(lowering_platforms=("cuda",)))


def test_a_float32_torso_is_seen(cudnn_file):
    assert len(lowered.float32_convolutions(lower_unet("float32"))) > 20


def test_sums_in_bfloat16_are_seen(cudnn_file, monkeypatch):
    def narrow_norm(x, gain, bias, groups, silu):
        return normalization.plain(x, gain.astype(x.dtype), bias.astype(x.dtype), groups, silu, 1e-5)

    monkeypatch.setattr(layers, "group_norm", narrow_norm)
    assert lowered.narrow_sums(lower_unet())


def test_a_gradient_of_biases_in_bfloat16_is_seen(cudnn_file, monkeypatch):
    monkeypatch.setattr(layers, "_plus_bias", lambda x, bias: x + bias.astype(x.dtype))
    assert lowered.narrow_sums(lower_unet())


def test_an_upsampling_by_index_is_seen(cudnn_file, monkeypatch):
    def by_index(x):
        rows = jnp.arange(2 * x.shape[1]) // 2
        return x[:, rows][:, :, rows]

    monkeypatch.setattr(unet, "upsample", by_index)
    assert {op.name for op in lowered.indexed(lower_unet(mult=(1, 1)))} == {"stablehlo.gather", "stablehlo.scatter"}


def test_channels_first_is_seen(cudnn_file, monkeypatch):
    def channels_first(x, kernel, padding, stride=1):
        out = jax.lax.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (stride,) * 2, "SAME")
        return out.transpose(0, 2, 3, 1)

    monkeypatch.setattr(convolution, "_conv", channels_first)
    assert len(lowered.transposed_around_convolutions(lower_unet())) > 20


def test_kept_weights_of_attention_are_seen(cudnn_file, monkeypatch):
    monkeypatch.setenv(attention.SWITCH, "0")
    assert lowered.square_arrays(lower_unet(), TOKENS, "UNet")


def test_joined_parameters_are_seen():
    leaf = jnp.zeros(3)
    added = jax.jit(functools.partial(SMALL_JOINED.map, jnp.add)).lower({"a": leaf, "b": leaf}, {"a": leaf, "b": leaf})
    assert len(lowered.joined(lowered.operations(added))) == 2
