"""Leapfrog: what was inverted comes back, for both families; its order; what it needs besides the recipe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.inference.edit import interpolate
from diffrep_jax.samplers import Sampling, driver
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.tasks.reconstruct import Reconstruct
from tests.few_steps import ALL, slope
from tests.gaussian_data import constant_problem, images, solve
from tests.tiny_model import tiny_model

LEAPFROG = Sampling("leapfrog")
GRIDS = {"vp": ("karras", "uniform_lambda", "uniform_t"), "ve": ("karras",), "ddpm": ("ddim_range", "ddim_linspace")}
FAMILIES = {"dbae": {}, "dbae_ve": {"bridge": "ve"}, "pdae": {}}


def curved(xT, bound=jnp.inf):
    """A denoiser that bends, mixes pixels and depends on time; clipped to +- bound."""

    def denoiser(x, t):
        mixed = x - 0.3 * jnp.roll(x, 1, axis=1) + 0.2 * xT
        return jnp.clip(jnp.tanh(1.5 * mixed) + 0.1 * jnp.sin(5 * x), -bound, bound)

    return Problem(denoiser, xT)


def there_and_back(how, process, problem, x0):
    code = driver.invert(how.stepper(), problem, x0, how.plan(process, upward=True))
    return code, driver.sample(how.stepper(), problem, code, how.plan(process, coded=True))


@pytest.mark.parametrize("name", ALL)
def test_it_is_of_second_order(x64, name):
    assert slope(LEAPFROG.stepper(), ALL[name], -4.0, 3.0) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("bound", [np.inf, 0.5])
@pytest.mark.parametrize("name, grid", [(name, grid) for name, grids in GRIDS.items() for grid in grids])
def test_what_was_inverted_comes_back_in_float64(x64, name, grid, bound):
    """Also where D is clipped: it is the same both ways."""
    how, x0 = Sampling("leapfrog", grid=grid, steps=20), images(3).clip(-1, 1)
    code, back = there_and_back(how, ALL[name], curved(images(0), bound), x0)
    assert code.shape == (*x0.shape[:3], 2)
    np.testing.assert_allclose(back, x0, atol=1e-12, rtol=0)


def test_without_the_defect_it_does_not_come_back(x64):
    how, process, x0 = Sampling("leapfrog", steps=20), ALL["vp"], images(3).clip(-1, 1)
    problem = curved(images(0))
    code, _ = there_and_back(how, process, problem, x0)
    alone = driver.sample(how.stepper(), problem, code.at[..., 1:].set(0), how.plan(process, coded=True))
    assert jnp.abs(alone - x0).max() > 1e-3


@pytest.mark.parametrize("name", ["vp", "ddpm"])
def test_evaluations_are_as_many_as_promised_up_and_down(name):
    process, calls = ALL[name], []
    how = Sampling("leapfrog", grid="karras", steps=7)
    problem = constant_problem(record=lambda: calls.append(1))
    for changes in ({}, {"upward": True}, {"coded": True}):
        calls.clear()
        run = driver.invert if changes.get("upward") else driver.sample
        run(how.stepper(), problem, problem.xT, how.plan(process, **changes))
        jax.effects_barrier()
        assert len(calls) == how.nfe(process, **changes)
    assert [how.nfe(process), how.nfe(process, upward=True), how.nfe(process, coded=True)] == [7, 7, 6]


@pytest.mark.parametrize(
    ("how", "evaluations"),
    [
        ({"sampler": "leapfrog"}, (7, 6, 7)),  # a code leads back over the times that it went up, one fewer
        ({"sampler": "exponential", "start": "noise"}, (8, 7, 6)),  # a code is all the noise that there is
        ({"sampler": "exponential", "eta": 1.0}, (7, 7, 6)),
        ({"sampler": "euler", "churn_step_ratio": 0.3}, (14, 7, 6)),  # up by the exponential one
    ],
)
def test_metrics_json_counts_the_evaluations_of_decoding_from_codes_and_without(how, evaluations):
    """(from x_T alone, from a stochastic code, upward to it)."""
    model = dataclasses.replace(tiny_model("dbae")[0], sampling=Sampling(steps=7, **how))
    without, coded = (Reconstruct(invert_steps=steps).description(model) for steps in (0, 7))
    assert (without["evaluations"], coded["evaluations"], coded["invert_evaluations"]) == evaluations
    assert without["invert_evaluations"] == 0
    assert {name: without[name] for name in how} == how  # and says of a code's decoding what was done
    assert (coded["start"], coded["eta"], coded["churn_step_ratio"]) == ("mean", 0, 0)


# --- with networks


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_gives_images_back(family):
    """The largest error of a pixel in [-1, 1], in float32, and the ends of a way between two."""
    model, pixels = tiny_model(family.partition("_")[0], **FAMILIES[family])
    grid = "karras" if family.startswith("dbae") else "ddim_range"
    how = Sampling("leapfrog", grid=grid, steps=20)
    encoded = model.encoded(pixels, invert_steps=20, how=how)
    assert encoded.stochastic_code.shape == (*pixels.shape[:3], 2 * model.channels)
    np.testing.assert_allclose(model.decode(encoded, how=how), pixels / 127.5 - 1.0, atol=1e-5, rtol=0)
    assert np.abs(model.decode(encoded.z, how=how) - (pixels / 127.5 - 1.0)).max() > 1e-2
    ends = interpolate(encoded[:1], encoded[1:2], points=3)
    np.testing.assert_allclose(model.decode(ends, how=how)[[0, 2]], pixels[:2] / 127.5 - 1.0, atol=1e-5, rtol=0)


def test_a_start_with_noise_is_drawn_by_number_and_gives_way_to_a_code():
    model, pixels = tiny_model("dbae")
    how, z = Sampling(steps=3, order=2, start="noise"), model.encode(pixels)
    images = model.decode(z, how=how)
    np.testing.assert_allclose(model.decode(z[::-1], how=how, numbers=np.array([2, 1, 0])), images[::-1], atol=1e-5)
    assert np.abs(images - model.decode(z, how=how, seed=1)).max() > 1e-4
    code = np.random.default_rng(0).normal(size=pixels.shape)
    given = [model.decode(z, how=how, stochastic_code=code, start=start) for start in ("noise", "mean")]
    np.testing.assert_array_equal(*given)
    noise = np.random.default_rng(0).normal(size=(len(z), 4, *pixels.shape[1:]))  # of three steps, and the start's
    same_last = noise * np.array([0, 0, 0, 1])[:, None, None, None]
    np.testing.assert_array_equal(model.decode(z, how=how, noise=noise), model.decode(z, how=how, noise=same_last))


@pytest.mark.parametrize("how", [{"eta": 1.0}, {"sampler": "euler", "churn_step_ratio": 0.33}])
def test_fresh_noise_gives_way_to_a_code(how):
    """An image that is encoded and decoded comes back by the ODE, whatever the recipe draws without a code."""
    model, pixels = tiny_model("dbae")
    random, without = Sampling(steps=5, **how), Sampling(sampler=Sampling(**how).sampler, steps=5)
    z = model.encode(pixels)
    assert np.abs(model.decode(z, how=random) - model.decode(z, how=random, seed=1)).max() > 1e-3
    up = [model.encoded(pixels, 5, each) for each in (random, without)]
    np.testing.assert_array_equal(up[0].stochastic_code, up[1].stochastic_code)
    np.testing.assert_array_equal(model.decode(up[0], how=random), model.decode(up[1], how=without))


def test_a_start_with_noise_is_the_state_next_to_the_endpoint(x64):
    """One step of order 1 keeps its noise; without the evaluation, all but D's small share of it."""
    process, xT, x0, eps = ALL["ve"], images(0), images(1), images(2)
    nodes = np.array([process.t_max - 1e-4, 30.0])
    a, b, c = process.coefficients(nodes[1])
    for start, tolerance in (("noise", 1e-9), ("noise_only", 1e-4)):
        out = solve(Sampling(start=start).stepper(), process, Problem(lambda x, t: x0, xT), xT, nodes, lambda i: eps)
        np.testing.assert_allclose(out, a * xT + b * x0 + c * eps, atol=tolerance * 10)
        assert (jnp.abs(out - a * xT - b * x0 - c * eps).max() > 1e-6) == (start == "noise_only")


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda model, x: Sampling("leapfrog", churn_step_ratio=0.3), ["churn_step_ratio 0.3", "leapfrog"]),
        (lambda model, x: Sampling("leapfrog", eta=1.0), ["eta 1.0", "leapfrog", "exponential"]),
        (lambda model, x: model.encoded(x, 10, Sampling("leapfrog", steps=20)), ["invert_steps 10", "invert_steps=20"]),
        (
            lambda model, x: model.decode(model.encoded(x, 3, Sampling("leapfrog", steps=3)), how=Sampling(steps=3)),
            ["stochastic_code", "shape"],
        ),
        (lambda model, x: model.decode(model.encode(x), how=Sampling(start="noise")), ["start=noise", "start=mean"]),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(call, says):
    with pytest.raises(UserError) as error:
        call(*tiny_model("pdae"))
    assert all(part in str(error.value) for part in says) and "\n" not in str(error.value), error.value
