"""Layers against other libraries, PyTorch's norms against NumPy, initial laws, sizes, types, parameter counts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import stats
from scipy.signal import correlate2d

from diffrep_jax.errors import UserError
from diffrep_jax.methods.dbae import DBAE
from diffrep_jax.models import layers
from diffrep_jax.models.attention import attention
from diffrep_jax.models.convolution import conv, upsample, upsample_conv
from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import (
    BatchNorm,
    Generator,
    SkipExcitation,
    SpectralKernel,
    _gated,
    base_and_doublings,
)
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import ResBlock, UNet

KEY = jax.random.key(0)


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_values(tree, seed=0, std=0.1):
    """The tree with normal noise added, so that no layer is silent because it starts at zero."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    noise = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, [leaf + std * n for leaf, n in zip(leaves, noise, strict=True)])


def shapes_of(module, *args, **kwargs):
    return jax.eval_shape(lambda: nn.meta.unbox(module.init(KEY, *args, **kwargs)))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def small_dbae(image_size=16, channels=1, **changes):
    fields = {
        "latent_dim": 12,
        "bridge": "vp",
        "stochastic_encoder": False,
        "sigma_data": 0.5,
        "sigma_data_end": 0.5,
        "cov_xy": 0.0,
        "dtype": "float32",
        "remat": False,
        "unet": {"width": 8, "mult": (1, 2), "blocks": 1, "attention": (8,), "head_dim": 4, "dropout": 0.1},
        "encoder": {"width": 8, "mult": (1, 2), "blocks": 1, "attention": (8,)},
        "generator": {"width": 2},
    }
    return DBAE(image_size=image_size, channels=channels, **(fields | changes))


# --- the published networks

PUBLISHED = {  # image size -> U-Net, encoder, generator: millions of parameters
    64: (69.7, 19.3, 31.6),
    128: (105.5, 24.7, 32.3),
}
LEVELS = {  # width, the U-Net's and the encoder's multiples
    64: (64, (1, 2, 4, 8), (1, 2, 4, 8, 8)),
    128: (128, (1, 1, 2, 3, 4), (1, 1, 2, 3, 4, 4)),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_networks_have_the_published_sizes(size):
    image, z, t = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 512)), jnp.zeros(1)
    width, unet_levels, encoder_levels = LEVELS[size]
    unet = UNet(3, width, unet_levels, blocks=2, attention=(32, 16, 8), head_dim=64, dropout=0.1)
    encoder = HalfUNet(512, width, encoder_levels, blocks=2, attention=(16,))
    generator = Generator(size, 3, width=64)
    trees = (
        shapes_of(unet, image, t, image, z),
        shapes_of(encoder, image),
        shapes_of(generator, z, train=False),
    )
    assert [round(count(tree["params"]) / 1e6, 1) for tree in trees] == list(PUBLISHED[size])


# --- layers against other libraries


def compare(ours, theirs, *args, rtol=1e-4):
    """The values, and the gradients with respect to all arguments, of two functions, relative to the largest number."""

    def results(function):
        out, pullback = jax.vjp(function, *args)
        weights = jnp.asarray(np.random.default_rng(9).standard_normal(out.shape), out.dtype)
        return out, pullback(weights)

    mine, others = jax.jit(lambda: (results(ours), results(theirs)))()
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(others), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(jnp.abs(b).max()))


@pytest.mark.parametrize("channels, groups", [(64, 32), (48, 16), (8, 8)])
@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_is_flax_group_norm_in_value_and_gradient(channels, groups, silu):
    ours = layers.GroupNorm(silu=silu)  # 32 groups, or as many as divide the channels
    theirs = nn.GroupNorm(num_groups=groups, epsilon=1e-5)
    params = {"scale": 1 + normal(channels, seed=2), "bias": normal(channels, seed=3)}

    def reference(params, x, scale_shift):
        scale, shift = jnp.split(scale_shift[:, None, None], 2, axis=-1)
        out = theirs.apply({"params": params}, x) * (1 + scale) + shift
        return out * jax.nn.sigmoid(out) if silu else out

    arguments = params, 0.05 * normal(2, 6, 5, channels) + 0.1, normal(2, 2 * channels, seed=4)
    compare(lambda params, *args: ours.apply({"params": params}, *args), reference, *arguments)


def test_group_norm_does_not_cancel_where_the_mean_is_large():
    x = np.asarray(normal(1, 16, 16, 4)) + 1000
    exact = x.astype(np.float64)
    exact = (exact - exact.mean()) / np.sqrt(exact.var() + 1e-5)
    params = {"scale": jnp.ones(4), "bias": jnp.zeros(4)}
    np.testing.assert_allclose(layers.GroupNorm(groups=1).apply({"params": params}, x), exact, atol=1e-3)


def test_group_norm_is_scaled_by_one_plus_the_first_half_and_shifted_by_the_second():
    x, gain, shift = normal(2, 4, 4, 8), normal(2, 8, seed=2), normal(2, 8, seed=3)
    params = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    plain = layers.GroupNorm().apply(params, x)
    modulated = layers.GroupNorm().apply(params, x, jnp.concatenate([gain, shift], -1))
    for row in range(2):
        np.testing.assert_allclose(modulated[row], plain[row] * (1 + gain[row]) + shift[row], atol=1e-6)


def test_attention_is_jax_attention_in_value_and_gradient():
    compare(attention, jax.nn.dot_product_attention, *(normal(2, 10, 3, 8, seed=i) for i in range(3)))


def test_attention_survives_large_logits():
    q, k, v = (normal(1, 5, 1, 4, seed=i) for i in range(3))
    out, pullback = jax.vjp(attention, 1e3 * q, 1e3 * k, v)
    np.testing.assert_allclose(out, jax.nn.dot_product_attention(1e3 * q, 1e3 * k, v), atol=1e-5)
    assert all(bool(jnp.isfinite(g).all()) for g in pullback(jnp.ones_like(out)))


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


def lax_conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # the form that the backend prefers
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("height, width", [(4, 5), (8, 8), (10, 9)])
def test_convolutions_are_laxs_in_value_and_gradient(monkeypatch, backend, size, height, width):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x, kernel = normal(2, height, width, 3), normal(size, size, 3, 5, seed=2)
    compare(conv, lax_conv, x, kernel)
    compare(
        upsample_conv,
        lambda x, kernel: lax_conv(jax.image.resize(x, (2, 2 * height, 2 * width, 3), "nearest"), kernel),
        x,
        kernel,
    )


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


# --- PyTorch's norms in the generator


def test_batch_norm_trains_on_batch_statistics_and_remembers_the_unbiased_variance():
    module = BatchNorm()
    variables = initialize(module, KEY, jnp.zeros((1, 2, 2, 3)), train=False)
    params = {"scale": normal(3, seed=2), "bias": normal(3, seed=3)}
    running_mean, running_var = np.zeros(3), np.ones(3)
    buffers = variables["batch_stats"]
    for step in range(3):
        x = 2 * normal(3, 2, 2, 3, seed=10 + step) + 1
        out, new = module.apply({"params": params, "batch_stats": buffers}, x, train=True, mutable=["batch_stats"])
        buffers = new["batch_stats"]
        flat = np.asarray(x, np.float64).reshape(-1, 3)
        running_mean = 0.9 * running_mean + 0.1 * flat.mean(0)
        running_var = 0.9 * running_var + 0.1 * flat.var(0, ddof=1)
        expected = (flat - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) * params["scale"] + params["bias"]
        np.testing.assert_allclose(out.reshape(-1, 3), expected, atol=1e-5)
    np.testing.assert_allclose(buffers["mean"], running_mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(buffers["var"], running_var, rtol=1e-5)

    out, new = module.apply({"params": params, "batch_stats": buffers}, x, train=False, mutable=["batch_stats"])
    expected = (flat - running_mean) / np.sqrt(running_var + 1e-5) * params["scale"] + params["bias"]
    np.testing.assert_allclose(out.reshape(-1, 3), expected, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], buffers)


def test_spectral_kernel_converges_to_the_largest_singular_value():
    module = SpectralKernel((3, 3, 4, 5), 36)
    variables = initialize(module, KEY, train=False)
    params, buffers = variables["params"], variables["batch_stats"]

    @jax.jit
    def train(buffers):
        return module.apply({"params": params, "batch_stats": buffers}, train=True, mutable=["batch_stats"])

    for _ in range(200):
        out, new = train(buffers)
        buffers = new["batch_stats"]
    largest = np.linalg.norm(np.asarray(params["kernel"], np.float64).reshape(-1, 5), 2)
    np.testing.assert_allclose(out, params["kernel"] / largest, rtol=1e-4)
    for vector in (buffers["u"], buffers["v"]):
        np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)

    out, new = module.apply({"params": params, "batch_stats": buffers}, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(np.linalg.norm(out.reshape(-1, 5), 2), 1, rtol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, new["batch_stats"], buffers)


def test_spectral_kernel_makes_one_power_iteration_a_training_step():
    module = SpectralKernel((4, 5), 4)
    variables = initialize(module, KEY, train=False)
    weight, u = (np.asarray(v, np.float64) for v in (variables["params"]["kernel"], variables["batch_stats"]["u"]))
    out, new = module.apply(variables, train=True, mutable=["batch_stats"])
    v = weight @ u / np.linalg.norm(weight @ u)
    u = v @ weight / np.linalg.norm(v @ weight)
    np.testing.assert_allclose(new["batch_stats"]["v"], v, rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["u"], u, rtol=1e-5)
    np.testing.assert_allclose(out, weight / (v @ weight @ u), rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_gradients_pass_through_sigma_but_not_through_u_and_v(train):
    """d(W / sigma) with u and v held: (G - <G, W / sigma> v u^T) / sigma."""
    module = SpectralKernel((4, 5), 4)
    variables = initialize(module, KEY, train=False)
    weights = np.asarray(normal(4, 5))

    def loss(params):
        variables_ = {"params": params, "batch_stats": variables["batch_stats"]}
        out, new = module.apply(variables_, train=train, mutable=["batch_stats"])
        return (weights * out).sum(), new["batch_stats"]

    gradient, used = jax.grad(loss, has_aux=True)(variables["params"])
    weight = np.asarray(variables["params"]["kernel"], np.float64)
    u, v = np.asarray(used["u"]), np.asarray(used["v"])
    sigma = v @ weight @ u
    expected = (weights - (weights * weight / sigma).sum() * np.outer(v, u)) / sigma
    np.testing.assert_allclose(gradient["kernel"], expected, rtol=1e-4, atol=1e-5)


def test_init_and_evaluation_leave_the_generators_buffers_alone():
    generator, z = Generator(8, 1, width=2), normal(3, 6)
    variables = initialize(generator, KEY, z, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["init_norm"]["mean"], 0)
    _, evaluated = generator.apply(variables, z, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, evaluated["batch_stats"], variables["batch_stats"])
    _, trained = generator.apply(variables, z, train=True, mutable=["batch_stats"])
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), trained["batch_stats"], variables["batch_stats"])
    changed["to_image"].pop("u")  # of one channel: always 1 or -1
    assert all(jax.tree.leaves(changed)), changed


def test_the_generators_gate_is_jax_glu():
    x = normal(2, 4, 4, 6)
    np.testing.assert_allclose(_gated(x), jax.nn.glu(x), rtol=1e-6)


def test_skip_excitation_gains_lie_between_zero_and_one_and_pool_to_the_base():
    module = SkipExcitation(6, 4)
    variables = initialize(module, KEY, jnp.zeros((2, 8, 8, 3)), train=False)
    _, warm = module.apply(variables, normal(2, 8, 8, 3), train=True, mutable=["batch_stats"])
    variables = {**variables, **warm}
    small = 5 * normal(2, 8, 8, 3, seed=2)
    gains = module.apply(variables, small, train=False)
    assert gains.shape == (2, 1, 1, 6) and float(gains.min()) > 0 and float(gains.max()) < 1
    blurred = jnp.asarray(np.kron(small.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)), np.ones((1, 2, 2, 1))))
    np.testing.assert_allclose(module.apply(variables, blurred, train=False), gains, atol=1e-5)


# --- initial values


def layer_paths(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def test_weights_and_biases_follow_pytorchs_uniform_law():
    unet = UNet(1, 16, (1, 2), 1, (8,), 8, dropout=0.0)
    x = jnp.zeros((1, 8, 8, 1))
    values = layer_paths(initialize(unet, KEY, x, jnp.zeros(1), x, jnp.zeros((1, 5)))["params"])
    kernels = {path for path in values if path.endswith("['kernel']")}
    drawn = 0
    for path in kernels:
        bias = path.replace("kernel", "bias")
        if "conv_out" in path or "proj" in path:
            np.testing.assert_array_equal(values[path], 0)
            np.testing.assert_array_equal(values[bias], 0)
            continue
        bound = math.prod(values[path].shape[:-1]) ** -0.5
        for leaf in (values[path], values[bias]):
            assert np.abs(leaf).max() <= bound
            assert stats.kstest(leaf.ravel() / bound, stats.uniform(-1, 2).cdf).pvalue > 1e-4, path
            drawn += 1
    assert drawn > 20
    for path, value in values.items():
        if path.endswith("['scale']"):
            np.testing.assert_array_equal(value, 1)
    assert len({v.tobytes() for v in values.values() if v.any() and not np.all(v == 1)}) == drawn  # no two alike


def test_generators_buffers_start_as_unit_vectors_and_unit_statistics():
    buffers = layer_paths(initialize(Generator(16, 1, 2), KEY, jnp.zeros((1, 6)), train=False)["batch_stats"])
    for path, value in buffers.items():
        if path.endswith(("['u']", "['v']")):
            np.testing.assert_allclose(np.linalg.norm(value), 1, rtol=1e-5)
        else:
            np.testing.assert_array_equal(value, 1 if path.endswith("['var']") else 0)
    vectors = [v.tobytes() for p, v in buffers.items() if p.endswith(("['u']", "['v']"))]
    assert len(set(vectors)) == len(vectors) > 6


def test_initial_values_depend_on_the_seed_and_on_nothing_else():
    method, batch = small_dbae(), {"image": jnp.zeros((2, 16, 16, 1))}
    eager = method.init(jax.random.key(3), batch)
    jitted = jax.jit(method.init)(jax.random.key(3), {"image": jnp.ones((5, 16, 16, 1))})
    jax.tree.map(np.testing.assert_array_equal, eager, jitted)
    other = layer_paths(method.init(jax.random.key(4), batch))
    for path, value in layer_paths(eager).items():
        random = value.any() and not np.all(value == 1)
        assert random == bool(np.any(other[path] != value)), path


def test_an_untrained_denoiser_only_shrinks_its_input():
    """The U-Net starts at zero: D = c_skip x_t, whose least-squares error at T is the mean image, 0."""
    method = small_dbae()
    variables = method.init(KEY, {"image": jnp.zeros((2, 16, 16, 1))})
    x, xT, z = normal(2, 16, 16, 1), normal(2, 16, 16, 1, seed=2), normal(2, 12)
    denoise = jax.jit(lambda x, t: method.denoiser(variables, z, xT)(x, t))
    np.testing.assert_allclose(denoise(x, 0.0), x, rtol=1e-6)
    np.testing.assert_allclose(denoise(x, 1.0), 0 * x, atol=1e-6)
    ratio = denoise(x, 0.5) / x
    assert 0 < float(ratio.min()) and np.ptp(ratio) < 1e-5 and float(ratio.max()) < 1


# --- conditions


def test_unet_listens_to_time_code_and_endpoint():
    x, t, xT, z = normal(2, 8, 8, 1), jnp.asarray([-3.0, 2.0]), normal(2, 8, 8, 1, seed=2), normal(2, 5)
    unet = UNet(1, 8, (1,), 1, (8,), 4, dropout=0.0)
    params = random_values(initialize(unet, KEY, x, t, xT, z))
    run = jax.jit(lambda *args: unet.apply(params, *args))
    base = run(x, t, xT, z)
    for changed in ((x + 1, t, xT, z), (x, t + 1, xT, z), (x, t, xT + 1, z), (x, t, xT, z + 1)):
        assert np.abs(run(*changed) - base).max() > 1e-3
    one = run(x[1:], t[1:], xT[1:], z[1:])
    np.testing.assert_allclose(one, base[1:], atol=1e-5)


def test_attention_is_where_the_sizes_say():
    x, t, z = jnp.zeros((1, 16, 16, 1)), jnp.zeros(1), jnp.zeros((1, 5))
    unet = shapes_of(UNet(1, 8, (1, 2, 2), 1, (8,), 4, dropout=0.0), x, t, x, z)["params"]
    assert {name for name in unet if "attention" in name} == {
        *("down1_attention0", "middle_attention", "up1_attention0", "up1_attention1")
    }
    encoder = shapes_of(HalfUNet(6, 8, (1, 2, 2), 2, (4,)), x)["params"]
    assert {name for name in encoder if "attention" in name} == {
        *("down2_attention0", "down2_attention1", "middle_attention")
    }


# --- sizes


@pytest.mark.parametrize("size", [8, 16, 28, 32, 48])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_builds(size, channels):
    images, codes = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32), jnp.zeros((2, 12))
    generator = Generator(size, channels, width=2)
    out = jax.eval_shape(lambda: generator.init_with_output(KEY, codes, train=False)[0])
    assert out.shape == images.shape and out.dtype == jnp.float32

    method = small_dbae(size, channels)

    def use(rng, x0):
        variables = method.init(rng, {"image": x0})
        z = method.encode(variables, x0)
        xT = method.endpoint(variables, z)
        return z, xT, method.denoiser(variables, z, xT)(x0, jnp.asarray(0.5))

    z, xT, denoised = jax.eval_shape(use, KEY, images)
    assert z.shape == (2, 12) and xT.shape == denoised.shape == images.shape


@pytest.mark.parametrize("size, found", [(8, (4, 1)), (28, (7, 2)), (48, (6, 3)), (64, (4, 4)), (448, (7, 6))])
def test_base_and_doublings_make_up_the_size(size, found):
    assert base_and_doublings(size) == found


@pytest.mark.parametrize("size", [0, 4, 7, 30, 72, 100, 512])
def test_sizes_without_a_base_are_refused_by_name(size):
    with pytest.raises(ValueError, match=f"image_size {size} "):
        base_and_doublings(size)
    with pytest.raises(UserError, match=f"image_size {size} .*choose another config.data.image_size"):
        small_dbae(size)


def test_levels_that_the_size_cannot_be_halved_for_are_refused():
    with pytest.raises(UserError, match="image_size 28 cannot be halved 3 times.*config.method.encoder.mult"):
        small_dbae(28, encoder={"width": 8, "mult": (1, 1, 1, 1), "blocks": 1, "attention": ()})


# --- types and recomputation


def equations(function, *args):
    """All equations of the traced function, also those inside of others."""

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            yield equation
            for value in equation.params.values():
                for item in value if isinstance(value, tuple | list) else [value]:
                    inner = getattr(item, "jaxpr", item)
                    if hasattr(inner, "eqns"):
                        yield from visit(inner)

    return list(visit(jax.make_jaxpr(function)(*args).jaxpr))


def convolution_types(function, *args):
    found = equations(function, *args)
    return {e.outvars[0].aval.dtype.name for e in found if e.primitive.name == "conv_general_dilated"}


def test_bfloat16_computes_the_torso_and_returns_float32():
    x, batch = normal(2, 8, 8, 1), {"image": jnp.zeros((2, 8, 8, 1))}
    unet = {"width": 8, "mult": (1,), "blocks": 1, "attention": (), "head_dim": 4, "dropout": 0.1}
    encoder = {"width": 8, "mult": (1,), "blocks": 1, "attention": ()}
    full, half = (small_dbae(8, dtype=dtype, unet=unet, encoder=encoder) for dtype in ("float32", "bfloat16"))
    variables = random_values(half.init(KEY, batch), std=0.03)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(half.init(KEY, batch))} == {"float32"}

    def use(method, x):
        z = method.encode(variables, x)
        xT = method.endpoint(variables, z)
        return z, xT, method.denoiser(variables, z, xT)(x, jnp.asarray(0.5))

    results = [jax.jit(lambda x, m=m: use(m, x))(x) for m in (full, half)]
    for exact, rough in zip(*results, strict=True):
        assert rough.dtype == jnp.float32
        error = np.linalg.norm(rough - exact) / np.linalg.norm(exact)
        assert 1e-5 < error < 0.05
    # the last convolutions of the U-Net and of the generator stay in float32
    assert convolution_types(lambda x: use(half, x), x) == {"bfloat16", "float32"}
    assert convolution_types(lambda x: use(full, x), x) == {"float32"}


def test_remat_recomputes_and_changes_neither_values_nor_gradients():
    x, t, keys = normal(2, 8, 8, 1), jnp.asarray([0.1, 0.2]), jax.random.split(KEY, 2)
    results = []
    for remat in (False, True):
        encoder = HalfUNet(6, 4, (1,), 1, (), remat)
        unet = UNet(1, 4, (1,), 1, (), 4, dropout=0.1, remat=remat)
        params = (initialize(encoder, KEY, x), initialize(unet, KEY, x, t, x, jnp.zeros((2, 6))))
        params = random_values(params)

        def loss(params, encoder=encoder, unet=unet):
            return (unet.apply(params[1], x, t, x, encoder.apply(params[0], x), keys) ** 2).sum()

        fast_to_compile = {"xla_backend_optimization_level": 0}
        results.append(jax.jit(jax.value_and_grad(loss), compiler_options=fast_to_compile)(params))
        recomputed = [e for e in equations(loss, params) if e.primitive.name in ("checkpoint", "remat", "remat2")]
        assert len(recomputed) == (3 + 5 if remat else 0)  # the residual blocks of the encoder and of the U-Net
    (value, gradient), (value_remat, gradient_remat) = results
    np.testing.assert_allclose(value_remat, value, rtol=1e-6)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    for plain, recomputed in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_remat), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-4, atol=1e-6 * scale)
    assert np.mean([np.any(leaf != 0) for leaf in jax.tree.leaves(gradient)]) > 0.95  # not a comparison of zeros


def test_a_residual_block_resamples_both_of_its_branches():
    x, emb = normal(1, 8, 8, 4), normal(1, 6)
    for resample, size in (("none", 8), ("up", 16), ("down", 4)):
        block = ResBlock(4, resample)
        params = initialize(block, KEY, x, emb, None)
        out = block.apply(params, x, emb, None)
        # its last convolution starts at zero, so that the block is the resampling of its input
        expected = {"none": x, "up": upsample(x), "down": layers.downsample(x)}[resample]
        assert out.shape == (1, size, size, 4)
        np.testing.assert_allclose(out, expected, atol=1e-6)
