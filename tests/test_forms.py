"""Convolution, attention, group norm in each platform's form against other libraries; jvp; the choice of a form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffrep_jax import forms
from diffrep_jax.models import attention as attention_module
from diffrep_jax.models import normalization
from diffrep_jax.models.attention import attention
from diffrep_jax.models.convolution import conv, upsample, upsample_conv
from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import Generator
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.normalization import group_norm
from diffrep_jax.models.unet import UNet
from tests.networks import KEY, random_values

pytestmark = pytest.mark.usefixtures("optimized_file")
PLATFORMS = ["cpu", "tpu"]  # "tpu" stands for all that are no CPU


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))


def traced_for(platform, function):
    """The function in the form for a platform, run on this machine's."""

    def run(*args):
        with forms.tracing_for(platform):
            return function(*args)

    return run


quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # to compile, that is


def plain_conv(x, kernel):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def upsampled_conv(x, kernel):
    return plain_conv(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


def flax_group_norm(x, gain, bias, groups, silu):
    module = nn.GroupNorm(groups, epsilon=1e-5, use_scale=False, use_bias=False, use_fast_variance=False)
    u = module.apply({}, x) * gain[:, None, None] + bias[:, None, None]
    return jax.nn.silu(u) if silu else u


def value_and_pullback(function, *arguments):
    """The value, and its gradient along a random direction of the output."""
    out, pull = jax.vjp(function, *arguments)
    return out, pull(draw(*out.shape, seed=1).astype(out.dtype))


def assert_close(ours, theirs, tolerance):
    """To a tolerance relative to the largest number of an array."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * (1e-3 + float(jnp.abs(b).max())))


# --- against other libraries, in float64


def assert_same_function(ours, theirs, *arguments, tolerance=1e-9, more=()):
    functions = [theirs, *(traced_for(platform, ours) for platform in PLATFORMS), *more]
    expected, *results = quick(lambda *args: [value_and_pullback(f, *args) for f in functions])(*arguments)
    for result in results:
        assert_close(result, expected, tolerance)


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
    assert_same_function(upsample_conv, upsampled_conv, draw(2, height, width, 3), draw(size, size, 3, 4))


def test_upsample_repeats_pixels():
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    np.testing.assert_array_equal(upsample(x), x.repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize(("t", "heads", "dim"), [(16, 1, 8), (9, 3, 4), (64, 2, 16)])
def test_attention_is_the_weighted_mean(t, heads, dim, x64):
    """Written out in NumPy: softmax over the keys of q k / sqrt(dim)."""
    q, k, v = (np.asarray(3 * draw(2, t, heads, dim, seed=i)) for i in range(3))
    weights = np.exp(np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(dim))
    expected = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)
    for platform in PLATFORMS:  # JAX's softmax is in float32 whatever the type of its inputs
        out = quick(traced_for(platform, attention))(q, k, v)
        np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-5)
    assert_same_function(attention, jax.nn.dot_product_attention, *map(jnp.asarray, (q, k, v)), tolerance=2e-5)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_attention_survives_large_logits(platform):
    q, k, v = (draw(1, 5, 1, 4, seed=i).astype(jnp.float32) for i in range(3))
    out, grads = value_and_pullback(traced_for(platform, attention), 1e3 * q, 1e3 * k, v)
    chosen = np.einsum("bqhd,bkhd->bhqk", q, k)[0, 0].argmax(1)  # so large that one key takes it all
    np.testing.assert_allclose(out[0, :, 0], v[0, chosen, 0], atol=1e-5)
    assert all(np.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_attention_computes_in_float32_and_keeps_the_type(dtype, platform):
    q, k, v = (draw(2, 64, 2, 16, seed=i).astype(dtype) for i in range(3))
    out = traced_for(platform, attention)(q, k, v)
    exact = jax.nn.dot_product_attention(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert out.dtype == dtype
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=2e-2 if dtype == "bfloat16" else 1e-5)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (6, 1), (4, 4)])
def test_group_norm_is_flaxs_with_a_gain_and_a_bias_an_image(channels, groups, silu, x64):
    x, gain, bias = 2 + 3 * draw(3, 4, 5, channels), draw(3, channels, seed=2), draw(3, channels, seed=3)
    ours = functools.partial(group_norm, groups=groups, silu=silu)
    for_gpus = functools.partial(normalization.few_reads, groups=groups, silu=silu, epsilon=1e-5)
    theirs = functools.partial(flax_group_norm, groups=groups, silu=silu)
    assert_same_function(ours, theirs, x, gain, bias, more=[for_gpus])


FORMS = [normalization.plain, normalization.one_rule, normalization.few_reads]


@pytest.mark.parametrize("form", FORMS)
def test_group_norm_does_not_cancel_where_the_mean_is_large(form):
    """E[x^2] - E[x]^2 would have no digit left in float32."""
    x = np.asarray(draw(1, 16, 16, 4), np.float32) + 1000
    exact = x.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    out = form(jnp.asarray(x), jnp.ones((1, 4)), jnp.zeros((1, 4)), 1, False, 1e-5)
    np.testing.assert_allclose(out, exact, atol=1e-3)


def test_the_first_pixel_may_be_far_off():
    """The one read sums differences from it: the farthest that it can be of 4,096 is 64 standard deviations."""
    x = np.array(1e-3 * draw(1, 64, 64, 1), np.float32)
    x[0, 0, 0] = 50
    exact = x.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    out = normalization.few_reads(jnp.asarray(x), jnp.ones((1, 1)), jnp.zeros((1, 1)), 1, False, 1e-5)
    np.testing.assert_allclose(out, exact, rtol=2e-3)


@pytest.mark.parametrize("silu", [False, True])
def test_the_form_for_gpus_keeps_bfloat16s_gradient(silu):
    """What is stored between is bfloat16, so that gradients are that far off, not more, and sums much less."""
    x, gain, bias = (draw(*shape, seed=i) for i, shape in enumerate([(2, 16, 16, 8), (2, 8), (2, 8)]))
    x = x.astype(jnp.bfloat16)
    form = {"groups": 2, "silu": silu, "epsilon": 1e-5}

    def of(form_of, x):
        return value_and_pullback(functools.partial(form_of, **form), x, gain, bias)

    with forms.tracing_for("cuda"):
        chosen = of(lambda *a, epsilon, **k: group_norm(*a, **k), x)
    out, (dx, *sums) = of(normalization.few_reads, x)
    jax.tree.map(np.testing.assert_array_equal, chosen, (out, (dx, *sums)))
    expected, (d_exact, *exact) = of(normalization.plain, x.astype(jnp.float32))
    assert out.dtype == dx.dtype == jnp.bfloat16
    pairs = zip((out, dx, *sums), (expected, d_exact, *exact), (4e-3, 8e-3, 4e-3, 4e-3), strict=True)
    for ours, theirs, bound in pairs:
        off = np.linalg.norm(np.asarray(ours, np.float32) - theirs)
        assert off < bound * np.linalg.norm(theirs)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_group_norm_of_bfloat16_computes_in_float32(platform):
    x = draw(2, 8, 8, 8).astype(jnp.bfloat16)
    ones, zeros = jnp.ones((2, 8), jnp.float32), jnp.zeros((2, 8), jnp.float32)
    out = traced_for(platform, group_norm)(x, ones, zeros, 2)
    assert out.dtype == jnp.bfloat16
    exact = flax_group_norm(x.astype(jnp.float32), ones, zeros, 2, False)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, rtol=2**-8, atol=1e-3)


# --- all forms alike, compiled and mapped, in float32

LAYERS = {
    "conv 1": (conv, plain_conv, ((2, 6, 5, 3), (1, 1, 3, 4))),
    "conv 3": (conv, plain_conv, ((2, 6, 5, 3), (3, 3, 3, 4))),
    "conv 3 large": (conv, plain_conv, ((2, 9, 8, 3), (3, 3, 3, 4))),
    "upsample_conv": (upsample_conv, upsampled_conv, ((2, 8, 9, 3), (3, 3, 3, 4))),
    "attention": (attention, jax.nn.dot_product_attention, ((2, 9, 2, 4),) * 3),
    "group norm": (
        functools.partial(group_norm, groups=2, silu=True),
        functools.partial(flax_group_norm, groups=2, silu=True),
        ((2, 4, 5, 6), (2, 6), (2, 6)),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("platform", [*PLATFORMS, None])  # None: as XLA lowers it here
def test_forms_agree_compiled_and_mapped(name, platform):
    ours, theirs, shapes = LAYERS[name]
    stacked = [draw(3, *shape, seed=i).astype(jnp.float32) for i, shape in enumerate(shapes)]
    here = ours if platform is None else traced_for(platform, ours)

    def compiled(function):
        return quick(jax.vmap(functools.partial(value_and_pullback, function)))(*stacked)

    assert_close(compiled(here), compiled(theirs), 1e-4)
    if platform == "tpu":
        tangents = [draw(3, *shape, seed=7 + i).astype(jnp.float32) for i, shape in enumerate(shapes)]
        jvp = [quick(jax.vmap(lambda x, dx, f=f: jax.jvp(f, x, dx)))(stacked, tangents) for f in (here, theirs)]
        assert_close(*jvp, 1e-4)


IMAGE, TIME = draw(1, 8, 8, 1).astype(jnp.float32), jnp.asarray([0.3])
CODE = draw(1, 5).astype(jnp.float32)
NETWORKS = {
    "unet": (UNet(1, 4, (1,), 1, (8,), 4, dropout=0.1), (IMAGE, TIME, IMAGE, CODE), {}),
    "encoder": (HalfUNet(6, 4, (1, 2), 1, ()), (IMAGE,), {}),
    "generator": (Generator(16, 1, 2), (CODE,), {"train": False}),
}


def network(name):
    """(a function of parameters, random ones that leave no layer silent, a direction)."""
    module, args, kwargs = NETWORKS[name]
    variables = initialize(module, KEY, *args, **kwargs)
    std = 0 if name == "generator" else 0.1  # its spectral norms would be far off
    params = random_values(variables["params"], std=std)
    direction = random_values(variables["params"], seed=1)
    return lambda params: module.apply(variables | {"params": params}, *args, **kwargs), params, direction


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_compiled_and_mapped_in_value_gradient_and_jvp(name):
    """Two parameter sets at once; the jvp is that of the plain form, the gradients along the direction say what of."""
    function, params, direction = network(name)
    params = jax.tree.map(lambda p, d: jnp.stack([p, p + 0.1 * d]), params, direction)
    direction = jax.tree.map(lambda d: jnp.stack([d, d]), direction)

    def loss(params):
        return (function(params) ** 2).sum()

    cpu, tpu = (quick(jax.vmap(jax.value_and_grad(traced_for(platform, loss))))(params) for platform in PLATFORMS)
    np.testing.assert_allclose(tpu[0], cpu[0], rtol=1e-4)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(cpu[1]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * scale), tpu[1], cpu[1])
    with forms.plain():
        _, slope = quick(jax.vmap(lambda p, d: jax.jvp(loss, (p,), (d,))))(params, direction)
    pairs = zip(*map(jax.tree.leaves, (cpu[1], direction)), strict=True)
    along = sum(jnp.einsum("si,si->s", *(x.reshape(2, -1) for x in pair)) for pair in pairs)
    np.testing.assert_allclose(slope, along, rtol=1e-3, atol=1e-4 * scale)


# --- the choice


def test_the_platform_of_the_program_chooses_not_the_machines():
    """jvp exists in the forms for other platforms alone; no GPU or TPU is needed to lower for one."""
    function, params, direction = network("encoder")
    jvp = jax.jit(lambda p, d: jax.jvp(function, (p,), (d,)))
    for platform in ("cuda", "tpu"):
        jvp.trace(params, direction).lower(lowering_platforms=(platform,))
    with pytest.raises(TypeError, match="custom_vjp"):
        jvp.trace(params, direction).lower(lowering_platforms=("cpu",))
    with forms.plain():
        jvp.trace(params, direction).lower(lowering_platforms=("cpu",))


def choice():
    return forms.by_platform(jnp.zeros(()), cpu=lambda x: x + 1, cuda=lambda x: x + 3, elsewhere=lambda x: x + 2)


def test_a_known_platform_ends_with_its_context():

    here = choice()
    with pytest.raises(KeyError), forms.tracing_for("tpu"):
        assert choice() == 2
        with forms.tracing_for("cpu"):
            assert choice() == 1
        assert choice() == 2
        raise KeyError
    assert choice() == here == (1 if jax.default_backend() == "cpu" else 2)


def test_what_jit_has_traced_for_one_platform_is_not_taken_for_another():
    compiled = jax.jit(choice)
    values = []
    for platform in ("cpu", "cuda", "gpu", "tpu", "cpu"):
        with forms.tracing_for(platform):
            values.append(int(compiled()))
    assert values == [1, 3, 2, 2, 1]


def test_a_device_says_its_platform():
    def device(platform, version):
        return type("Device", (), {"platform": platform, "client": type("Client", (), {"platform_version": version})})

    versions = {"PJRT C API\ncuda 12080": "cuda", "PJRT C API\nrocm 60300": "gpu"}
    for version, platform in versions.items():
        assert forms.platform_of(device("gpu", version)) == platform
    assert forms.platform_of(jax.devices("cpu")[0]) == "cpu"


# --- cuDNN's attention, which is lowered for a GPU that is not here


def lower_attention(function, *shape, dtype="bfloat16", platform="cuda"):
    q = jax.ShapeDtypeStruct(shape, dtype)
    with forms.tracing_for(platform):
        return jax.jit(function).trace(q, q, q).lower(lowering_platforms=("cuda",)).as_text()


def gradient(q, k, v):
    return jax.grad(lambda q, k, v: (attention(q, k, v).astype(jnp.float32) ** 2).sum(), (0, 1, 2))(q, k, v)


@pytest.mark.parametrize("platform", ["cuda", None])
def test_cudnn_computes_attention_and_its_gradient_where_it_fits(platform, cudnn):
    for form, shape in ((gradient, (2, 64, 3, 16)), (jax.vmap(jax.checkpoint(gradient)), (5, 2, 64, 3, 16))):
        text = lower_attention(form, *shape, platform=platform)
        assert "__cudnn$fmhaSoftmax(" in text and "__cudnn$fmhaSoftmaxBackward(" in text
        assert "stablehlo.exponential" not in text


@pytest.mark.parametrize(
    ("shape", "dtype", "platform"),
    [
        ((2, 64, 3, 12), "bfloat16", "cuda"),
        ((2, 64, 3, 136), "bfloat16", "cuda"),
        ((2, 49, 3, 16), "bfloat16", "cuda"),
        ((2, 64, 3, 16), "float32", "cuda"),
        ((2, 64, 3, 16), "bfloat16", "gpu"),
        ((2, 64, 3, 16), "bfloat16", "any"),
    ],
)
def test_xla_computes_attention_where_cudnn_would_not(shape, dtype, platform, cudnn):
    text = lower_attention(gradient, *shape, dtype=dtype, platform=platform)
    assert "cudnn" not in text and "stablehlo.exponential" in text


@pytest.mark.parametrize(("capabilities", "answer"), [([9.0, 8.0], True), ([9.0, 7.5], False), (None, False)])
def test_gpus_before_ampere_have_no_fused_attention(capabilities, answer, monkeypatch):
    def devices(platform):
        assert platform == "cuda"
        if capabilities is None:
            raise RuntimeError("Unknown backend cuda")
        return [type("Device", (), {"compute_capability": str(number)}) for number in capabilities]

    monkeypatch.setattr(jax, "devices", devices)
    assert attention_module._gpus_have_it.__wrapped__() == answer
    monkeypatch.setattr(attention_module, "_gpus_have_it", lambda: answer)
    assert attention_module.fused_is_here() == answer
    monkeypatch.setenv(attention_module.SWITCH, "0")
    assert not attention_module.fused_is_here()
