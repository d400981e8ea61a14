"""Samplers on Gaussian data, whose denoiser and ODE have closed forms; orders, evaluation counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.samplers import Sampling, normal_noise, samplers
from diffrep_jax.samplers.drift import Problem
from tests.gaussian_data import (
    DDPM,
    DITI,
    LEVELS,
    MEAN,
    PROCESSES,
    SMOOTH,
    STD,
    constant_problem,
    endless,
    gaussian_problem,
    images,
    keys,
    moments,
    solve,
)

STEPPERS = {name: Sampling(name).stepper() for name in samplers()}
ORDERED = [name for name, stepper in STEPPERS.items() if hasattr(stepper, "order")]
CHURNABLE = [name for name, stepper in STEPPERS.items() if not stepper.memory]


def transported(process, xT, x, t, t_next):
    """The exact solution of the ODE: it keeps the marginals, so that a Gaussian's standard scores do not change."""
    (mean, std), (mean_next, std_next) = moments(process, xT, t), moments(process, xT, t_next)
    return mean_next + std_next * (x - mean) / std


# --- accuracy


def error_at_the_end_of_the_stretch(stepper, name, steps):
    process, (first, last) = PROCESSES[name], SMOOTH[name]
    xT = images(0)
    start = moments(process, xT, first)[0] + images(1) * moments(process, xT, first)[1]
    nodes = np.linspace(first, last, steps + 1)
    end = jax.jit(lambda x: solve(endless(stepper), process, gaussian_problem(process, xT), x, nodes))(start)
    return float(jnp.abs(end - transported(process, xT, start, first, last)).max())


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler", ORDERED)
def test_error_falls_with_the_declared_order(x64, sampler, name):
    stepper = STEPPERS[sampler]
    steps = [64, 128, 256, 512]
    errors = [error_at_the_end_of_the_stretch(stepper, name, n) for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - stepper.order) < 0.15, (slope, errors)


def test_samplers_declare_their_orders():
    assert {name: STEPPERS[name].order for name in ORDERED} == {"euler": 1, "heun": 2, "exponential": 1}


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("sampler, tolerance", [("euler", 0.08), ("heun", 0.01), ("exponential", 0.08)])
def test_the_whole_way_to_time_zero_finds_x0(x64, name, sampler, tolerance):
    process, xT = PROCESSES[name], images(0)
    nodes = Sampling(steps=200).nodes(process)
    nodes = nodes[nodes < 0.9 * process.t_max]  # at T the drift has a pole
    mean, std = moments(process, xT, nodes[0])
    scores = jnp.linspace(-2, 2, xT.size).reshape(xT.shape)
    x0 = solve(STEPPERS[sampler], process, gaussian_problem(process, xT), mean + std * scores, nodes)
    np.testing.assert_allclose(x0, MEAN + STD * scores, atol=tolerance)


# --- how often the denoiser is called

PUBLISHED = {
    ("euler", 0.0): {1: 1, 2: 2, 7: 7},
    ("heun", 0.0): {1: 1, 2: 3, 7: 13},
    ("exponential", 0.0): {1: 1, 2: 2, 7: 7},
    ("euler", 0.33): {1: 2, 2: 4, 7: 14},
    ("heun", 0.33): {1: 2, 2: 5, 7: 20},
}


@pytest.mark.parametrize("name, ratio", [*((name, 0.0) for name in STEPPERS), *((name, 0.33) for name in CHURNABLE)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations_are_as_many_as_promised(name, ratio, steps):
    how, process, calls = Sampling(name, steps=steps, churn_step_ratio=ratio), PROCESSES["vp"], []
    problem = constant_problem(record=lambda: calls.append(1))
    noise = normal_noise(keys(2), problem.xT.shape)
    solve(how.stepper(), process, problem, problem.xT, how.nodes(process), noise)
    jax.effects_barrier()
    assert len(calls) == how.stepper().nfe(steps) == how.nfe(process)
    if (name, ratio) in PUBLISHED:
        assert len(calls) == PUBLISHED[name, ratio][steps]


def test_the_way_up_counts_the_steps_that_it_has():
    """On the grid karras there is one step less upward, as the one to t_data is left out."""
    assert Sampling(steps=7).nfe(PROCESSES["vp"], upward=True) == 6
    assert Sampling(grid="ddim_range", steps=300).nfe(DDPM) == len(range(0, 1000, 3))


@pytest.mark.parametrize("name", STEPPERS)
def test_a_trajectory_is_one_program_whose_size_does_not_grow_with_the_steps(name):
    traced = []

    def program(steps):
        traced.clear()

        def run(x):
            problem = Problem(lambda x, t: (traced.append(t), 0.5 * x)[1], x)
            nodes = Sampling(steps=steps).nodes(PROCESSES["vp"])
            return solve(STEPPERS[name], PROCESSES["vp"], problem, x, nodes)

        jitted = jax.jit(run)
        compiled = jitted(images(0))
        count = len(traced)
        np.testing.assert_allclose(compiled, run(images(0)), rtol=1e-4, atol=1e-5)
        return count

    assert program(3) == program(50)


# --- the way is the sum of its parts


@pytest.mark.parametrize("name, ratio", [*((name, 0.0) for name in CHURNABLE), ("heun", 0.33)])
def test_single_steps_end_where_the_whole_way_does(x64, name, ratio):
    """Each with its own noise, and each moves the state."""
    process, start = PROCESSES["vp"], images(3)
    how = Sampling(name, steps=3, churn_step_ratio=ratio)
    problem, nodes, noise = gaussian_problem(process, images(0)), how.nodes(process), normal_noise(keys(2), start.shape)
    path = [start]
    for i in range(3):
        stepper = how.stepper() if i == 2 else endless(how.stepper())
        path.append(solve(stepper, process, problem, path[-1], nodes[i : i + 2], lambda _, i=i: noise(i)))
    np.testing.assert_allclose(path[-1], solve(how.stepper(), process, problem, start, nodes, noise), rtol=1e-9)
    assert all(np.abs(b - a).max() > 0 for a, b in zip(path[:-1], path[1:], strict=True))


def test_a_denoiser_that_knows_x0_is_followed_to_it():
    """For a constant D the last step ends in D exactly, wherever it came from: x_0 + c eps, c -> 0."""
    x0, xT = images(0), images(1)
    for name, process in PROCESSES.items():
        nodes = Sampling(steps=20).nodes(process)
        out = solve(STEPPERS["heun"], process, Problem(lambda x, t: x0, xT), xT, nodes)
        np.testing.assert_allclose(out, x0, atol=5e-3, err_msg=name)


# --- the exponential integrator: DDIM and DBIM


def one_step(process, denoised, x, xT, t, t_next, eta=0.0, noise=None):
    problem = Problem(lambda x, t: denoised, xT)
    draw = None if noise is None else lambda i: noise
    return solve(Sampling("exponential", eta=eta).stepper(), process, problem, x, [t, t_next], draw)


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
    ddim, how = STEPPERS["exponential"], Sampling(grid=grid, steps=steps)
    up = how.nodes(DDPM, upward=True)
    code = solve(ddim, DDPM, problem, mean + std * scores, up)
    mean_T, std_T = moments(DDPM, 0.0, up[-1])
    np.testing.assert_allclose((code - mean_T) / std_T, scores, atol=0.03)
    back = solve(ddim, DDPM, problem, code, how.nodes(DDPM))
    np.testing.assert_allclose(back, mean + std * scores, atol=0.03)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_bridge_is_inverted_by_the_same_steps(name):
    process, xT = PROCESSES[name], images(0)
    problem, x0 = gaussian_problem(process, xT), 0.3 * images(1)
    up = Sampling(steps=300).nodes(process, upward=True)
    assert up[0] == pytest.approx(process.t_min) and np.all(np.diff(up) > 0) and len(up) == 300
    mean, std = moments(process, xT, process.t_min)
    code = solve(STEPPERS["exponential"], process, problem, x0, up)
    mean_T, std_T = moments(process, xT, up[-1])
    np.testing.assert_allclose((code - mean_T) / std_T, (x0 - mean) / std, atol=0.05)
