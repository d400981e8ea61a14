"""Samplers on Gaussian data, whose denoiser and ODE have closed forms; orders, evaluation counts, paths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import samplers
from diffrep_jax.errors import UserError
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.driver import normal_noise, sample
from tests.gaussian_data import (
    DDPM,
    DITI,
    LEVELS,
    MEAN,
    PROCESSES,
    SMOOTH,
    STD,
    constant_problem,
    gaussian_problem,
    images,
    keys,
    moments,
)

ORDERED = [name for name in samplers.names() if hasattr(samplers.build(name), "order")]


def transported(process, xT, x, t, t_next):
    """The exact solution of the ODE: it keeps the marginals, so that a Gaussian's standard scores do not change."""
    (mean, std), (mean_next, std_next) = moments(process, xT, t), moments(process, xT, t_next)
    return mean_next + std_next * (x - mean) / std


# --- accuracy


def error_at_the_end_of_the_stretch(sampler, name, steps):
    process, (first, last) = PROCESSES[name], SMOOTH[name]
    xT = images(0)
    start = moments(process, xT, first)[0] + images(1) * moments(process, xT, first)[1]
    nodes = np.append(np.linspace(first, last, steps + 1), 0.0)
    path = jax.jit(lambda x: sample(sampler, gaussian_problem(process, xT), x, nodes, path=True)[1])
    states = path(start)
    return float(jnp.abs(states[-2] - transported(process, xT, start, first, last)).max())


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler", ORDERED)
def test_error_falls_with_the_declared_order(x64, sampler, name):
    sampler = samplers.build(sampler)
    steps = [64, 128, 256, 512]
    errors = [error_at_the_end_of_the_stretch(sampler, name, n) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - sampler.order) < 0.15, (slope, errors)


def test_samplers_declare_their_orders():
    assert {name: samplers.build(name).order for name in ORDERED} == {"euler": 1, "heun": 2, "exponential": 1}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler, tolerance", [("euler", 0.08), ("heun", 0.01), ("exponential", 0.08)])
def test_the_whole_way_to_time_zero_finds_x0(x64, name, sampler, tolerance):
    process, xT = PROCESSES[name], images(0)
    nodes = samplers.grid("karras", process, 200)
    nodes = nodes[nodes < 0.9 * process.t_max]  # at T the drift has a pole
    mean, std = moments(process, xT, nodes[0])
    scores = jnp.linspace(-2, 2, xT.size).reshape(xT.shape)
    x0 = sample(samplers.build(sampler), gaussian_problem(process, xT), mean + std * scores, nodes)
    np.testing.assert_allclose(x0, MEAN + STD * scores, atol=tolerance)


# --- how often the denoiser is called

PUBLISHED = {
    ("euler", 0.0): {1: 1, 2: 2, 7: 7},
    ("heun", 0.0): {1: 1, 2: 3, 7: 13},
    ("exponential", 0.0): {1: 1, 2: 2, 7: 7},
    ("euler", 0.33): {1: 2, 2: 4, 7: 14},
    ("heun", 0.33): {1: 2, 2: 5, 7: 20},
}


@pytest.mark.parametrize("name", samplers.names())
@pytest.mark.parametrize("ratio", [0.0, 0.33])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations_are_as_many_as_promised(name, ratio, steps):
    sampler, calls = samplers.build(name, ratio), []
    problem = constant_problem(record=lambda: calls.append(1))
    nodes = samplers.grid("karras", problem.process, steps)
    sample(sampler, problem, problem.xT, nodes, normal_noise(keys(2), problem.xT.shape))
    jax.effects_barrier()
    assert len(calls) == sampler.evaluations(steps)
    if (name, ratio) in PUBLISHED:
        assert len(calls) == PUBLISHED[name, ratio][steps]


@pytest.mark.parametrize("name", samplers.names())
def test_a_trajectory_is_one_program_whose_size_does_not_grow_with_the_steps(name):
    traced = []

    def program(steps):
        traced.clear()

        def run(x):
            problem = Problem(PROCESSES["vp"], lambda x, t: (traced.append(t), 0.5 * x)[1], x)
            return sample(samplers.build(name), problem, x, samplers.grid("karras", problem.process, steps))

        jitted = jax.jit(run)
        compiled = jitted(images(0))
        count = len(traced)
        np.testing.assert_allclose(compiled, run(images(0)), rtol=1e-4, atol=1e-5)
        return count

    assert program(3) == program(50)


# --- the path


@pytest.mark.parametrize("ratio", [0.0, 0.33])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_path_goes_from_the_start_to_the_result(ratio, steps):
    problem, start = constant_problem(), images(3)
    arguments = (samplers.build("heun", ratio), problem, start, samplers.grid("karras", problem.process, steps))
    noise = normal_noise(keys(2), start.shape)
    result, states = sample(*arguments, noise, path=True)
    assert states.shape == (steps + 1, *start.shape)
    np.testing.assert_array_equal(states[0], start)
    np.testing.assert_array_equal(states[-1], result)
    np.testing.assert_array_equal(sample(*arguments, noise), result)
    assert all(np.abs(b - a).max() > 0 for a, b in zip(states[:-1], states[1:], strict=True))


def test_a_denoiser_that_knows_x0_is_followed_to_it():
    """For a constant D the last step ends in D exactly, wherever it came from: x_0 + c eps, c -> 0."""
    x0, xT = images(0), images(1)
    for name, process in PROCESSES.items():
        nodes = samplers.grid("karras", process, 20)
        out = sample(samplers.build("heun"), Problem(process, lambda x, t: x0, xT), xT, nodes)
        np.testing.assert_allclose(out, x0, atol=5e-3, err_msg=name)


# --- errors


def test_every_sampler_file_holds_a_sampler():
    assert {"euler", "heun", "exponential"} <= set(samplers.names())
    for name in samplers.names():
        sampler = samplers.build(name)
        assert isinstance(sampler.stochastic, bool)
        assert samplers.build(name) == sampler and hash(samplers.build(name)) == hash(sampler)
        assert samplers.build(name, 0.3).stochastic


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: samplers.build("huen"), ["'huen'", "Did you mean 'heun'", "euler"]),
        (lambda: samplers.build("churn"), ["'churn'", "heun"]),
        (lambda: samplers.build("heun", 1.0), ["churn_step_ratio 1.0", "[0, 1)"]),
        (lambda: samplers.build("heun", -0.1), ["churn_step_ratio -0.1", "[0, 1)"]),
        (lambda: samplers.build("heun", float("nan")), ["churn_step_ratio nan", "[0, 1)"]),
    ],
)
def test_bad_settings_are_named_with_the_remedy(call, says):
    with pytest.raises(UserError) as error:
        call()
    assert all(part in str(error.value) for part in says), error.value


# --- the exponential integrator: DDIM and DBIM


def one_step(process, denoised, x, xT, t, t_next, eta=0.0, noise=None):
    problem = Problem(process, lambda x, t: denoised, xT)
    draw = None if noise is None else lambda i: noise
    return sample(samplers.build("exponential", eta=eta), problem, x, np.array([t, t_next]), draw)


@pytest.mark.parametrize("name", LEVELS)
def test_one_exponential_step_is_exact_for_a_denoiser_that_knows_x0(x64, name):
    """However long it is, downward or upward, to x_0 itself and to where nothing of x_0 is left."""
    process = {**PROCESSES, "ddpm": DDPM}[name]
    x0, xT, eps = images(0), images(1), images(2)

    def state(t):
        a, b, c = process.coefficients(jnp.asarray(t))
        return a * xT + b * x0 + c * eps

    high, low = LEVELS[name]
    ends = {"ddpm": DDPM.t_noise}.get(name, process.t_max)
    for t, t_next in [(high, low), (low, high), (low, process.t_data), (low, ends)]:
        np.testing.assert_allclose(one_step(process, x0, state(t), xT, t, t_next), state(t_next), atol=1e-9)


@pytest.mark.parametrize("t", [1, 2, 37, 642, 999])
def test_eta_1_is_the_posterior_of_ddpm(x64, t):
    """What is left of x_t = b D after a step, with unit noise, is the official posterior deviation."""
    denoised = images(0)
    b, b_next = (DDPM.coefficients(jnp.asarray(float(s)))[1] for s in (t, t - 1))
    out = one_step(DDPM, denoised, b * denoised, denoised, float(t), t - 1.0, 1.0, jnp.ones_like(denoised))
    expected = np.exp(DITI["posterior_log_variance"][t] / 2)
    # The official float32 cancels in 1 - alpha_bar where alpha_bar is near 1.
    np.testing.assert_allclose(out - b_next * denoised, np.full(denoised.shape, expected), rtol=2e-4)


def test_the_last_step_draws_nothing():
    x, noise = images(0), images(1)
    quiet = one_step(DDPM, x, x, x, 0.0, -1.0, 1.0, jnp.zeros_like(x))
    np.testing.assert_array_equal(one_step(DDPM, x, x, x, 0.0, -1.0, 1.0, noise), quiet)


@pytest.mark.parametrize("steps, grid", [(1000, "ddim_range"), (999, "ddim_linspace")])
def test_encoding_with_ddim_solves_the_ode_upward(steps, grid):
    """For Gaussian data the score (x - mean) / std stays the same along the ODE, and decoding comes back."""
    scores = jnp.linspace(-2, 2, 8).reshape(2, 2, 2, 1)
    problem = gaussian_problem(DDPM, jnp.zeros_like(scores))
    mean, std = moments(DDPM, 0.0, 0.0)
    ddim = samplers.build("exponential")
    up = samplers.grid(grid, DDPM, steps, encoding=True)
    code = sample(ddim, problem, mean + std * scores, up)
    mean_T, std_T = moments(DDPM, 0.0, up[-1])
    np.testing.assert_allclose((code - mean_T) / std_T, scores, atol=0.03)
    back = sample(ddim, problem, code, samplers.grid(grid, DDPM, steps))
    np.testing.assert_allclose(back, mean + std * scores, atol=0.03)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_bridge_is_inverted_by_the_same_steps(name):
    process, xT = PROCESSES[name], images(0)
    problem, x0 = gaussian_problem(process, xT), 0.3 * images(1)
    up = samplers.grid("karras", process, 300, encoding=True)
    assert up[0] == pytest.approx(process.t_min) and np.all(np.diff(up) > 0) and len(up) == 300
    mean, std = moments(process, xT, process.t_min)
    code = sample(samplers.build("exponential"), problem, x0, up)
    mean_T, std_T = moments(process, xT, up[-1])
    np.testing.assert_allclose((code - mean_T) / std_T, (x0 - mean) / std, atol=0.05)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: samplers.build("heun", eta=0.5), ["eta 0.5", "heun", "exponential"]),
        (lambda: samplers.build("exponential", eta=-1.0), ["eta -1.0", "below 0"]),
        (lambda: samplers.build("exponential", eta=float("nan")), ["eta nan"]),
        (lambda: samplers.build("exponential", 0.33, 0.5), ["eta 0.5", "0.33", "both"]),
    ],
)
def test_settings_that_do_not_fit_are_named(call, says):
    with pytest.raises(UserError) as error:
        call()
    assert all(part in str(error.value) for part in says), error.value
