"""Initial values: their laws, seeds and streams, and that Linen's own init draws by the same laws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffrep_jax.models.encoder import HalfUNet
from diffrep_jax.models.generator import Generator
from diffrep_jax.models.heads import Head
from diffrep_jax.models.initialization import Declared, initialize
from diffrep_jax.models.latent_mlp import LatentMLP
from diffrep_jax.models.unet import UNet
from tests.networks import KEY, layer_paths, normal, small_dbae


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


def test_initial_values_stay_what_they_are():
    """A seed's values are part of every published number: drawn by NumPy, the same with any version of JAX."""
    variables = small_dbae().init(jax.random.key(3), {"image": jnp.zeros((2, 16, 16, 1))})
    kernel = variables["params"]["unet"]["conv_in"]["kernel"].ravel()
    np.testing.assert_array_equal(kernel[:3], [0.08551932871341705, -0.10930821299552917, -0.09573046863079071])
    u = variables["batch_stats"]["generator"]["init_conv"]["u"]
    np.testing.assert_allclose(u[:3], [-0.12143468856811523, 0.2578786611557007, 0.2427857518196106], rtol=1e-6)


# --- Linen's own init


def quickly_compiled(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def linen_and_ours(module, *args, **kwargs):
    """(the variables of `module.init`, those of `initialize`), as {path: array}."""
    linen = quickly_compiled(lambda key: module.init(key, *args, **kwargs))(KEY)
    assert not any(isinstance(leaf, Declared) for leaf in jax.tree.leaves(linen))
    return layer_paths(linen), layer_paths(initialize(module, KEY, *args, **kwargs))


IMAGE, TIME, CODE = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros((1, 5))
MODULES = {
    "unet": (UNet(1, 8, (1,), 1, (), 8, dropout=0.1), (IMAGE, TIME, IMAGE, CODE), {}),
    "encoder": (HalfUNet(6, 8, (1,), 1, (), remat=True), (IMAGE,), {}),
    "generator": (Generator(16, 1, 2), (CODE,), {"train": False}),
    "mlp": (LatentMLP(8, 3, 4), (CODE, TIME), {}),
    "head": (Head((20, 3), norm=True), (CODE,), {}),
}


@pytest.mark.parametrize("name", MODULES)
def test_linens_init_draws_values_of_the_same_laws(name):
    module, args, kwargs = MODULES[name]
    linen, ours = linen_and_ours(module, *args, **kwargs)
    assert linen.keys() == ours.keys()
    signs = []
    for path, values in ours.items():
        drawn = linen[path]
        assert (drawn.shape, drawn.dtype) == (values.shape, values.dtype), path
        if len(np.unique(values)) == 1 and values.size > 1:
            np.testing.assert_array_equal(drawn, values, path)
        elif path.endswith(("['u']", "['v']")):
            np.testing.assert_allclose(np.linalg.norm(drawn), 1, rtol=1e-5, err_msg=path)
        elif values.size >= 100:
            assert stats.ks_2samp(drawn.ravel(), values.ravel()).pvalue > 1e-4, path
            signs.append(np.sign(drawn).tobytes())
    assert len(set(signs)) == len(signs) > 0  # each parameter has a stream of its own


def test_initialize_leaves_linens_init_as_it_is():
    """What `initialize` does while it traces is over when it ends, also by an error."""
    module, args, _ = MODULES["mlp"]
    with pytest.raises(TypeError):
        initialize(module, KEY, CODE)
    for _ in range(2):
        kernel = quickly_compiled(module.init)(KEY, *args)["params"]["out"]["kernel"]
        assert np.ptp(kernel) > 0
        initialize(module, KEY, *args)


def test_a_module_that_linen_initialised_computes():
    module = MODULES["encoder"][0]
    out, variables = quickly_compiled(lambda key: module.init_with_output(key, normal(1, 8, 8, 1)))(KEY)
    assert np.ptp(out) > 1e-3
    np.testing.assert_allclose(jax.jit(module.apply)(variables, normal(1, 8, 8, 1)), out, rtol=1e-5)
