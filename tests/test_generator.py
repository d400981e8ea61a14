"""The generator: PyTorch's batch norm and spectral norm against NumPy, gates, buffers, the sizes that it has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.models.generator import (
    BatchNorm,
    Generator,
    SkipExcitation,
    SpectralKernel,
    _gated,
    base_and_doublings,
    parts_of,
)
from diffrep_jax.models.initialization import initialize
from tests.networks import KEY, normal, small_dbae


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


def test_batch_norm_by_parts_is_that_of_each_part():
    """As the published training has it, micro-batch by micro-batch; the running statistics follow the parts' mean."""
    module, parts = BatchNorm(images=3), 1 + 2 * normal(2, 3, 2, 2, 4, seed=5)
    variables = initialize(module, KEY, parts[0], train=False)
    out, new = module.apply(variables, parts.reshape(6, 2, 2, 4), train=True, mutable=["batch_stats"])
    each = [BatchNorm().apply(variables, part, train=True, mutable=["batch_stats"]) for part in parts]
    np.testing.assert_allclose(out, np.concatenate([image for image, _ in each]), atol=1e-6)
    for name in ("mean", "var"):
        expected = np.mean([buffers["batch_stats"][name] for _, buffers in each], axis=0)
        np.testing.assert_allclose(new["batch_stats"][name], expected, rtol=1e-5)
        assert np.ptp([buffers["batch_stats"][name] for _, buffers in each], axis=0).min() > 0
    assert [parts_of(size, 32) for size in (1, 32, 33, 37, 48, 64, 256, 160)] == [1, 1, 1, 1, 2, 2, 8, 5]
    assert [parts_of(size, 0) for size in (1, 256)] == [1, 1]


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


# --- sizes


@pytest.mark.parametrize("size, expected", [(8, (4, 1)), (28, (7, 2)), (48, (6, 3)), (64, (4, 4)), (448, (7, 6))])
def test_base_and_doublings_make_up_the_size(size, expected):
    assert base_and_doublings(size) == expected


@pytest.mark.parametrize("size", [0, 4, 7, 30, 72, 100, 512])
def test_sizes_without_a_base_are_refused_by_name(size):
    with pytest.raises(ValueError, match=f"image_size {size} "):
        base_and_doublings(size)
    with pytest.raises(UserError, match=f"image_size {size} .*choose another config.data.image_size"):
        small_dbae(size)
