"""Exponential integrators of order 2 and 3 and the corrector: slopes, exact integrals, laws, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from diffrep_jax.errors import UserError
from diffrep_jax.samplers import Sampling, normal_noise, samplers
from diffrep_jax.samplers.clocks import moments as clock_moments
from diffrep_jax.samplers.drift import Problem, intervals
from diffrep_jax.samplers.grids import GRIDS
from tests.few_steps import ALL, error_on, slope
from tests.gaussian_data import PROCESSES, constant_problem, images, keys, solve

CORRECTED = {"order 1": {"corrector": True}, "order 2": {"order": 2, "corrector": True}}

# --- accuracy


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "order, changes, high",
    [
        (1, {}, 3.0),
        (2, {"order": 2}, 3.0),
        (3, {"order": 3}, 1.0),  # farther on, errors of opposite signs nearly cancel and the slope is 4
        (2, {"corrector": True}, 3.0),
        (3, {"order": 2, "corrector": True}, 3.0),
    ],
)
def test_errors_fall_with_the_order_in_lambda(x64, name, order, changes, high):
    assert slope(Sampling(**changes).stepper(), ALL[name], -4.0, high) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("changes", [{"order": 2}, {"corrector": True}])
def test_errors_fall_with_order_2_in_log_rho(x64, changes):
    process = PROCESSES["ve"]
    errors = [
        error_on(
            Sampling(clock="log_rho", **changes).stepper(),
            process,
            Sampling(grid="uniform_log_rho", steps=steps + 1).nodes(process)[:-1],
        )
        for steps in (64, 128)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)


def test_few_steps_of_order_2_beat_more_of_order_1(x64):
    """On the whole way of a VP bridge, with half the evaluations."""
    for name, process in ALL.items():
        nodes = {steps: Sampling(grid="uniform_lambda", steps=steps).nodes(process) for steps in (10, 20)}
        ten, twenty = (error_on(Sampling(order=k).stepper(), process, nodes[n]) for k, n in ((2, 10), (1, 20)))
        assert ten < twenty, name


# --- the integrals


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("times", [(0.8, 0.5), (0.5, 0.49), (0.3, 0.6)])
def test_moments_are_those_of_a_quadrature(name, times):
    """c_t times the integral of (u - u_s)^k dw, over a long, a short and an upward interval."""
    process = ALL[name]
    s, t = (np.array([x * process.t_max]) for x in times)

    def w(x):
        _, b, c = process.coefficients(np.asarray(x))
        return b / c

    readings = {"lambda": lambda x: np.log(w(x)), "log_rho": lambda x: -np.log(process.rho(np.asarray(x)))}
    for clock, degree in (("lambda", 3), ("log_rho", 1)):
        got = clock_moments(clock, process, intervals(process, s, t), degree)
        expected = [_moment(w, readings[clock], k, s[0], t[0]) for k in range(1, degree + 1)]
        np.testing.assert_allclose(got[:, 0], process.coefficients(t)[2] * expected, rtol=1e-6)


def _moment(w, u, k, s, t):
    """The integral of (u - u_s)^k dw, by parts: that of w d(u - u_s)^k needs no derivative of w."""
    h = u(t) - u(s)
    return h**k * w(t) - quad(lambda v: w(_time(u, v + u(s), s, t)) * k * v ** (k - 1), 0, h)[0]


def _time(u, reading, s, t):
    """The time at which the clock reads so, between s and t, whichever is later."""
    low, high = sorted((s, t))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if u(middle) > reading else (low, middle)
    return low


@pytest.mark.parametrize("order, corrector", [(2, False), (3, False), (1, True), (2, True), (3, True)])
def test_a_denoiser_that_is_a_polynomial_in_lambda_is_integrated_exactly(x64, order, corrector):
    """Up to what the first steps leave, short ones of lower orders; a short last step has a corrected start."""
    process, xT = PROCESSES["vp"], images(0)
    degree = order - 1 + corrector

    def denoiser(x, t):
        _, b, c = process.coefficients(t)
        return jnp.full_like(x, jnp.log(b / c) ** degree)

    nodes = np.array([0.7, 0.6999, 0.6998, 0.6997, 0.3, 0.12, 0.1199])
    fine = np.concatenate([np.linspace(a, b, 500)[:-1] for a, b in zip(nodes[:-1], nodes[1:], strict=True)])
    problem = Problem(denoiser, xT)
    exact = solve(Sampling(order=3).stepper(), process, problem, xT, np.append(fine, nodes[-1]))
    lower, same = (
        jnp.abs(solve(how.stepper(), process, problem, xT, nodes) - exact).max()
        for how in (Sampling(order=max(order - 1, 1)), Sampling(order=order, corrector=corrector))
    )
    assert same < 2e-4 < 0.1 < lower


# --- laws of all samplers


def _recipes():
    for name in samplers():
        yield name, {"sampler": name}
    yield from (("order 2", {"order": 2}), ("order 3", {"order": 3}), *CORRECTED.items())
    yield "log_rho", {"order": 2, "clock": "log_rho"}
    yield "eta", {"eta": 1.0}


EXACT = {name: changes for name, changes in _recipes() if name not in ("euler", "heun")}  # these linearize the way


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT)
def test_a_constant_denoiser_is_solved_exactly_on_every_grid(x64, name, changes):
    process, x0 = ALL[name], images(3)
    problem = Problem(lambda x, t: x0, images(0))
    tried = 0
    for grid in GRIDS:
        if process.steps is None and grid.startswith("ddim"):
            continue
        how = Sampling(grid=grid, steps=5, **changes)
        nodes = how.nodes(process)
        a, b, c = process.coefficients(nodes[0])
        start = a * problem.xT + b * x0 + c * images(4)
        out = solve(how.stepper(), process, problem, start, nodes, normal_noise(keys(2), x0.shape))
        a, b, c = process.coefficients(nodes[-1])
        error = jnp.abs(out - a * problem.xT - b * x0)
        if c == 0 or not how.eta:  # what fresh noise leaves is no solution
            np.testing.assert_allclose(error, c * jnp.abs(images(4)), atol=1e-9, err_msg=grid)
        tried += 1
    assert tried >= 4


@pytest.mark.parametrize("start", ["mean", "noise", "noise_only"])
@pytest.mark.parametrize("changes", [*EXACT.values(), {"sampler": "heun", "churn_step_ratio": 0.33}])
def test_evaluations_are_as_many_as_promised(changes, start):
    process, calls = PROCESSES["vp"], []
    how = Sampling(steps=6, start=start, **changes)
    problem = constant_problem(record=lambda: calls.append(1))
    solve(how.stepper(), process, problem, problem.xT, how.nodes(process), normal_noise(keys(2), problem.xT.shape))
    jax.effects_barrier()
    assert len(calls) == how.nfe(process)
    assert len(calls) - Sampling(steps=6, **changes).nfe(process) == (start == "noise")


@pytest.mark.parametrize("name", ALL)
def test_a_higher_order_leads_upward_and_back(x64, name):
    """Invertible to the accuracy of its steps, more so with more of them."""
    process, x0, errors = ALL[name], images(3), []
    problem = Problem(lambda x, t: jnp.tanh(x), images(0))
    for steps in (40, 80):
        how = Sampling(grid="uniform_lambda", steps=steps, order=3)
        up = how.nodes(process, upward=True)
        state = solve(how.stepper(), process, problem, x0, up)
        errors.append(float(jnp.abs(solve(how.stepper(), process, problem, state, up[::-1]) - x0).max()))
    assert errors[1] < errors[0] / 3, errors


# --- refusals


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"order": 3, "eta": 1.0}, ["order 3", "eta 1.0", "order=1"]),
        ({"order": 4}, ["order 4", "1, 2 or 3"]),
        ({"order": True}, ["order True"]),
        ({"corrector": True, "eta": 0.5}, ["corrector", "eta 0.5"]),
        ({"corrector": 1}, ["corrector 1", "True or False"]),
        ({"clock": "rho"}, ["'rho'", "lambda"]),
        ({"clock": "log_rho"}, ["clock log_rho", "order=2"]),
        ({"clock": "log_rho", "order": 3}, ["clock log_rho", "clock=lambda"]),
        ({"clock": "log_rho", "order": 2, "corrector": True}, ["and the corrector", "clock=lambda"]),
        ({"order": 2, "churn_step_ratio": 0.3}, ["churn_step_ratio 0.3", "remembers"]),
        ({"sampler": "euler", "order": 2}, ["order 2", "sampler euler", "exponential"]),
        ({"start": "noisy"}, ["'noisy'", "noise_only"]),
    ],
)
def test_recipes_that_do_not_fit_are_refused_in_one_line(changes, says):
    with pytest.raises(UserError) as error:
        Sampling(**changes)
    assert all(part in str(error.value) for part in says) and "\n" not in str(error.value), error.value
