"""Networks as a whole: the published sizes, what they listen to, image sizes, types, recomputation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.models import layers
from diffrep_jax.models.convolution import upsample
from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import Generator
from diffrep_jax.models.initialization import initialize
from diffrep_jax.models.unet import ResBlock, UNet
from tests.networks import KEY, count, normal, random_values, shapes_of, small_dbae

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
    traced = equations(function, *args)
    return {e.outvars[0].aval.dtype.name for e in traced if e.primitive.name == "conv_general_dilated"}


def test_bfloat16_computes_the_unet_alone_and_returns_float32():
    """The published code trains encoder and generator in float32; so the codes do not depend on `dtype` at all."""
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
    assert {out.dtype for out in results[1]} == {jnp.dtype("float32")}
    (z, xT, exact), (half_z, half_xT, rough) = results
    np.testing.assert_array_equal(half_z, z)
    np.testing.assert_array_equal(half_xT, xT)
    assert 1e-5 < np.linalg.norm(rough - exact) / np.linalg.norm(exact) < 0.05
    denoise = lambda x: half.denoiser(variables, z, xT)(x, jnp.asarray(0.5))  # noqa: E731
    assert convolution_types(denoise, x) == {"bfloat16", "float32"}  # its last one stays in float32
    encode = lambda x: half.endpoint(variables, half.encode(variables, x))  # noqa: E731
    assert convolution_types(encode, x) == {"float32"}
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
