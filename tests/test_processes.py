"""Bridges and preconditioning: golden numbers, the SDE that they come from, unit variances, float32 near T."""

import math
from decimal import Decimal, localcontext
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from diffrep_jax.processes.base import diffuse, per_image
from diffrep_jax.processes.bridge import VEBridge, VPBridge
from diffrep_jax.processes.gaussian import DiscreteVP
from diffrep_jax.processes.preconditioning import Karras, Plain, c_noise
from diffrep_jax.samplers.drift import nodes_at, ode_drift, sde_drift

GOLDEN = np.load(Path(__file__).parent / "golden" / "bridge.npz")
BRIDGES = {"ve": VEBridge(), "vp": VPBridge()}
# Other constants than the published ones, so that none of them is baked in.
UNUSUAL = {"ve": VEBridge(t_max=3.0), "vp": VPBridge(t_max=0.7, beta_min=0.4, beta_d=5.0)}
ALL = [*BRIDGES.values(), *UNUSUAL.values()]


def close(value, golden, rtol=1e-9):
    assert np.asarray(value).dtype == np.float64
    np.testing.assert_allclose(value, golden, rtol=rtol, atol=0)


# --- golden numbers of the official code


@pytest.mark.parametrize("name", BRIDGES)
def test_coefficients_and_rate_meet_the_official_numbers(x64, name):
    t = jnp.asarray(GOLDEN[f"{name}_t"])
    for key, value in zip("abc", BRIDGES[name].coefficients(t), strict=True):
        close(value, GOLDEN[f"{name}_{key}"])
    close(BRIDGES[name].g2(t), GOLDEN[f"{name}_g2"])


@pytest.mark.parametrize("name", BRIDGES)
def test_drifts_meet_the_official_numbers(x64, name):
    x, x0, xT = GOLDEN[f"{name}_scalars"]
    nodes = nodes_at(BRIDGES[name], GOLDEN[f"{name}_t"])
    close(ode_drift(x0, x, xT, nodes), GOLDEN[f"{name}_d_ode"])
    close(sde_drift(x0, x, xT, nodes), GOLDEN[f"{name}_d_sde"])


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.parametrize("end", [0.0, 0.5])
def test_preconditioning_meets_the_official_numbers(x64, name, end):
    case = f"{name}_end{end}_"
    coefficients = BRIDGES[name].coefficients(jnp.asarray(GOLDEN[case + "t"]))
    karras = Karras(sigma_data=0.5, sigma_data_end=end, cov_xy=0.0)
    for key, value in zip(("c_skip", "c_out", "c_in"), karras.scalings(*coefficients), strict=True):
        close(value, GOLDEN[case + key])
    close(karras.weight(*coefficients), GOLDEN[case + "weight"])


# --- laws of the bridges


@pytest.mark.parametrize("process", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_bridge_starts_at_x0_and_ends_at_xT(x64, process, dtype):
    start = process.coefficients(jnp.asarray(0.0, dtype))
    end = process.coefficients(jnp.asarray(process.t_max, dtype))
    ulp = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(start, (0, 1, 0), rtol=0, atol=ulp)
    np.testing.assert_allclose(end, (1, 0, 0), rtol=0, atol=ulp)
    assert {k.dtype for k in (*start, *end)} == {jnp.dtype(dtype)}
    near = process.coefficients(jnp.asarray(process.t_min, dtype))
    np.testing.assert_allclose(near, (0, 1, 0), rtol=0, atol=0.02)


@pytest.mark.parametrize("process", ALL)
def test_coefficients_are_the_moments_of_the_conditioned_sde(process):
    """Integrates dx = (f x + g2 d/dx log p(x_T | x_t)) dt + g dw, knowing g2 alone (VE: f = 0; VP: f = -g2/2)."""
    f = (lambda t: 0.0) if isinstance(process, VEBridge) else (lambda t: -process.g2(t) / 2)
    options = {"rtol": 1e-11, "atol": 1e-13, "method": "DOP853"}

    def free(t, y):  # the unconditioned process: log alpha and rho^2
        return f(t), process.g2(t) * math.exp(-2 * y[0])

    def rates(t, y):  # a, b and the variance, driven towards x_T by Doob's h-transform
        log_alpha, rho2, a, b, variance = y
        pull = process.g2(t) / (math.exp(2 * log_alpha) * (end_rho2 - rho2))
        linear = f(t) - pull
        toward = pull * math.exp(log_alpha - end_log_alpha)
        return *free(t, y), linear * a + toward, linear * b, 2 * linear * variance + process.g2(t)

    end_log_alpha, end_rho2 = solve_ivp(free, (0, process.t_max), (0.0, 0.0), **options).y[:, -1]
    times = np.array([0.01, 0.1, 0.3, 0.5, 0.8, 0.95]) * process.t_max
    found = solve_ivp(rates, (0, times[-1]), (0, 0, 0, 1, 0), t_eval=times, **options).y
    a, b, c = process.coefficients(jnp.asarray(times, jnp.float32))
    np.testing.assert_allclose((a, b, c), (found[2], found[3], np.sqrt(found[4])), rtol=3e-6)


@pytest.mark.parametrize("name", BRIDGES)
def test_float32_does_not_cancel_at_either_end(name):
    """Against the definition in 50 decimal digits, at times that float32 holds exactly."""
    process = BRIDGES[name]
    distances = 2.0 ** -np.arange(1, 15) * (1 if name == "vp" else 64)
    for t in [*(process.t_max - distances), *distances]:
        assert np.float32(t) == t
        ours = (*process.coefficients(jnp.asarray(t, jnp.float32)), process.a_complement(jnp.asarray(t, jnp.float32)))
        np.testing.assert_allclose([float(k) for k in ours], _exact(process, t), rtol=2e-6)


@pytest.mark.parametrize("name", BRIDGES)
@pytest.mark.parametrize("drift", [ode_drift, sde_drift])
def test_drifts_near_T_are_the_same_in_float32_as_in_float64(x64, name, drift):
    """Where x is near x_T, as sampling starts, and a is near 1; the nodes are float64's, rounded as the driver does."""
    process = BRIDGES[name]
    for k in range(4, 14):
        node = nodes_at(process, process.t_max - 2.0**-k)
        for x in (1.0, 1 + 2.0**-k):
            values = []
            for dtype in ("float32", "float64"):
                cast = lambda v, dtype=dtype: jnp.asarray(v, dtype)  # noqa: E731
                values.append(drift(*(cast(v) for v in (0.25, x, 1.0)), jax.tree.map(cast, node)))
            assert values[0].dtype == jnp.float32
            np.testing.assert_allclose(*values, rtol=1e-4, err_msg=f"{name} T - {2.0**-k} x {x}")


def _exact(process, time):
    """a, b, c and 1 - a."""
    with localcontext() as context:
        context.prec = 50

        def alpha_and_rho2(t):
            if isinstance(process, VEBridge):
                return Decimal(1), t * t
            rho2 = (Decimal(process.beta_min) * t + Decimal(process.beta_d) * t * t / 2).exp() - 1
            return 1 / (1 + rho2).sqrt(), rho2

        (alpha, rho2), (alpha_T, rho2_T) = alpha_and_rho2(Decimal(time)), alpha_and_rho2(Decimal(process.t_max))
        left = 1 - rho2 / rho2_T
        a = alpha / alpha_T * rho2 / rho2_T
        return [float(v) for v in (a, alpha * left, alpha * (rho2 * left).sqrt(), 1 - a)]


def test_diffuse_takes_one_time_an_example():
    process, shape = VPBridge(), (3, 4, 4, 2)
    x0, xT, eps = (jax.random.normal(jax.random.key(i), shape) for i in range(3))
    t = jnp.asarray([0.0, 1.0, 0.5])
    xt = diffuse(process, x0, xT, eps, t)
    np.testing.assert_allclose(xt[0], x0[0], atol=1e-6)
    np.testing.assert_allclose(xt[1], xT[1], atol=1e-6)
    # At t = 1/2 the least-squares fit of x_t on (x_T, x_0, eps) finds the coefficients, and nothing is left over.
    design = np.stack([np.ravel(v[2]) for v in (xT, x0, eps)], axis=1)
    fit, rest, *_ = np.linalg.lstsq(design, np.ravel(xt[2]), rcond=None)
    np.testing.assert_allclose(fit, _exact(process, 0.5)[:3], rtol=1e-5)
    assert rest < 1e-9


def test_per_image_broadcasts_over_the_image():
    values = per_image(jnp.asarray([1.0, 2.0]), jnp.ones((2, 3, 3, 1)))
    assert values.shape == (2, 1, 1, 1) and values.ravel().tolist() == [1.0, 2.0]


# --- preconditioning


@pytest.mark.parametrize("process", ALL)
@pytest.mark.parametrize("s0, sT, cov", [(0.5, 0.5, 0.0), (0.5, 0.0, 0.0), (0.3, 1.2, 0.2), (0.5, 0.5, -0.1)])
def test_network_sees_unit_variance_and_learns_a_unit_variance_target(process, s0, sT, cov):
    """On a population whose second moments are exact: three orthogonal sign patterns."""
    h1, h2, h3 = np.array([[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]], np.float64)
    x0 = s0 * h1
    xT = cov / s0 * h1 + math.sqrt(sT**2 - cov**2 / s0**2) * h2
    karras = Karras(s0, sT, cov)
    for fraction in (0.01, 0.2, 0.5, 0.9):
        a, b, c = (float(k) for k in process.coefficients(jnp.asarray(fraction * process.t_max)))
        xt = a * xT + b * x0 + c * h3
        c_skip, c_out, c_in = (float(k) for k in karras.scalings(*(jnp.asarray(k) for k in (a, b, c))))
        target = (x0 - c_skip * xt) / c_out  # what F has to be for D = x_0
        np.testing.assert_allclose(((c_in * xt) ** 2).mean(), 1, rtol=2e-5)
        np.testing.assert_allclose((target**2).mean(), 1, rtol=1e-3)
        # c_skip makes c_out, the amplifier of F's errors, as small as can be: the target is blind to x_t (EDM, B.6).
        np.testing.assert_allclose((target * xt * c_in).mean(), 0, atol=1e-3)
        # The weighted loss of D is the plain loss of F, whatever F says.
        F = np.array([0.3, -1.0, 0.2, 2.0])
        weighted = float(karras.weight(*(jnp.asarray(k) for k in (a, b, c)))) * ((c_skip * xt + c_out * F - x0) ** 2)
        np.testing.assert_allclose(weighted.mean(), ((F - target) ** 2).mean(), rtol=1e-3)


def test_plain_is_the_network_itself():
    t = jnp.asarray([0.1, 0.5])
    coefficients = VPBridge().coefficients(t)
    c_skip, c_out, c_in = Plain().scalings(*coefficients)
    assert (c_skip.tolist(), c_out.tolist(), c_in.tolist()) == ([0, 0], [1, 1], [1, 1])
    assert Plain().weight(*coefficients).tolist() == [1, 1]


@pytest.mark.parametrize("compiled", [False, True])
def test_c_noise_is_a_logarithm_that_stays_finite_at_zero(compiled):
    noise = (jax.jit(c_noise) if compiled else c_noise)(jnp.asarray([0.0, 1e-4, 1.0, math.e], jnp.float32))
    assert np.isfinite(noise[0]) and noise[0] < noise[1]
    np.testing.assert_allclose(noise[1:], (-1000 * math.log(10), 0, 250), rtol=1e-6, atol=1e-4)


def test_the_denoiser_at_time_zero_is_the_identity():
    a, b, c = BRIDGES["vp"].coefficients(jnp.zeros(()))
    c_skip, c_out, _ = Karras(0.5, 0.5, 0.0).scalings(a, b, c)
    assert (float(c_skip), float(c_out)) == (1, 0)


# --- the discrete diffusion of DDPM

DDPM = DiscreteVP()
DITI = np.load(Path(__file__).parent / "golden" / "diti_tiny.npz")


def test_alpha_bar_meets_the_official_numbers_at_every_step():
    np.testing.assert_allclose(DDPM.alpha_bar(jnp.arange(1000.0)), DITI["alphas_cumprod"], rtol=2e-6)


def test_x0_is_one_step_below_the_first_and_noise_one_above_the_last():
    a, b, c = DDPM.coefficients(jnp.asarray([DDPM.t_data, DDPM.t_noise]))
    assert (a.tolist(), b.tolist(), c.tolist()) == ([0, 0], [1, 0], [0, 1])
    assert (DDPM.t_data, DDPM.t_min, DDPM.t_max, DDPM.t_noise) == (-1, 0, 999, 1000)


def test_between_the_steps_the_rate_is_that_of_the_step_above(x64):
    betas = np.linspace(1e-4, 0.02, 1000)
    steps = np.array([0, 1, 37, 642, 999])
    for offset in (0.1, 0.9):
        np.testing.assert_allclose(DDPM.g2(jnp.asarray(steps - offset)), -np.log(1 - betas[steps]), rtol=1e-9)
    # dx = -g2/2 x dt + g dw has these moments: b' = -g2/2 b, (c^2)' = g2 (1 - c^2)
    t = jnp.asarray([0.5, 37.25, 641.3, 998.7])
    (_, b, c), (_, db, dc) = jax.jvp(DDPM.coefficients, (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(db, -DDPM.g2(t) / 2 * b, rtol=1e-9)
    np.testing.assert_allclose(2 * c * dc, DDPM.g2(t) * (1 - c**2), rtol=1e-9)


@pytest.mark.parametrize("process", [*ALL, DDPM])
def test_t_data_is_where_x_t_is_x0(process):
    np.testing.assert_allclose(process.coefficients(jnp.asarray(process.t_data)), (0, 1, 0), atol=1e-6)
    assert process.t_data <= process.t_min < process.t_max
