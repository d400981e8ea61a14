"""What processes say in NumPy's float64 and in JAX's float32 and float64 is one thing; slopes are derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.processes.bridge import VEBridge, VPBridge
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.samplers import Sampling
from diffrep_jax.samplers.drift import nodes_at

PROCESSES = {
    **{"ve": VEBridge(), "ve_short": VEBridge(t_max=3.0)},
    **{"vp": VPBridge(), "vp_other": VPBridge(t_max=0.7, beta_min=0.4, beta_d=5.0)},
    **{"ddpm": DiscreteVP(), "prior": DiscreteVP(beta_first=0.008, beta_last=0.008)},
}


def times_of(process):
    """Between the steps of a discrete process, to both ends of a bridge, where float32 holds each exactly."""
    if process.steps:
        return np.array([-0.75, 0.25, 1.5, 36.5, 37.25, 641.75, 998.5])
    fractions = np.append(2.0 ** -np.arange(1.0, 9.0), 1 - 2.0 ** -np.arange(2.0, 9.0))
    return (process.t_max * fractions).astype(np.float32).astype(np.float64)


def functions_of(process):
    return (
        lambda t: (
            np.stack(process.coefficients(t)) if isinstance(t, np.ndarray) else jnp.stack(process.coefficients(t))
        ),
        process.a_complement,
        lambda t: np.stack(process.slopes(t)) if isinstance(t, np.ndarray) else jnp.stack(process.slopes(t)),
        process.g2,
    )


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_slopes_are_the_derivatives_of_the_coefficients(x64, process):
    t = times_of(process)
    _, derivatives = jax.jvp(process.coefficients, (jnp.asarray(t),), (jnp.ones(len(t)),))
    np.testing.assert_allclose(process.slopes(t), derivatives, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(process.slopes(jnp.asarray(t)), derivatives, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_all_forms_agree(x64, process):
    """Numbers of one kind and type give the same back; a single time has no axis.

    In float32 the rate of a discrete process is a difference of entries of its table, which costs digits.
    """
    t = times_of(process)
    for function in functions_of(process):
        numpy64 = function(t)
        assert isinstance(numpy64, np.ndarray) and numpy64.dtype == np.float64
        for dtype, rtol in (("float64", 1e-12), ("float32", 1e-4 if process.steps else 5e-6)):
            ours = function(jnp.asarray(t, dtype))
            assert isinstance(ours, jax.Array) and ours.dtype == dtype
            np.testing.assert_allclose(ours, numpy64, rtol=rtol, atol=1e-12)
            traced = jax.jit(function)(jnp.asarray(t, dtype))
            np.testing.assert_allclose(traced, numpy64, rtol=rtol, atol=1e-12)
        single = function(np.asarray(t[3]))
        np.testing.assert_allclose(single, numpy64[..., 3], rtol=1e-12)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_nodes_of_a_grid_are_finite_but_for_the_drift_at_the_ends(process):
    """Where x_t is x_0, c is 0 and its slope may be infinite: no step reads it."""
    node = nodes_at(process, Sampling(steps=20).nodes(process))
    for name, values in node._asdict().items():
        assert values.shape == (21,) and values.dtype == np.float64, name
        assert np.isfinite(values[:-1]).all(), name
    np.testing.assert_allclose((node.a[-1], node.b[-1], node.c[-1]), (0, 1, 0), rtol=1e-15, atol=0)
