"""Noise of samplers: it keeps the marginals, depends on the example alone, and is drawn once a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffrep_jax.inference import compiled
from diffrep_jax.samplers import Sampling, normal_noise
from diffrep_jax.samplers.driver import START
from tests.gaussian_data import (
    DDPM,
    LEVELS,
    PROCESSES,
    SMOOTH,
    constant_problem,
    gaussian_problem,
    images,
    keys,
    moments,
    solve,
)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("ratio", [0.33, 0.9])
def test_churn_keeps_the_marginals(name, ratio):
    """Samples of x_t, churned along a stretch, have the mean and the variance that x_t has at its end."""
    process, (first, last) = PROCESSES[name], SMOOTH[name]
    n = 20_000
    xT = jnp.full((n, 1, 1, 1), -0.7)
    mean, std = moments(process, xT, first)
    start = mean + std * jax.random.normal(jax.random.key(5), xT.shape)
    nodes = np.linspace(first, last, 201)
    stepper = Sampling("euler", churn_step_ratio=ratio).stepper()
    noise = normal_noise(keys(n), xT.shape)
    out = jax.jit(lambda x: solve(stepper, process, gaussian_problem(process, xT), x, nodes, noise))(start)
    mean, std = (float(jnp.mean(v)) for v in moments(process, xT, last))
    assert abs(out.mean() - mean) < 0.03 * std
    assert abs(out.std() / std - 1) < 0.02
    # It is noise that keeps them: the scores at the two ends are no longer the same, as the ODE would have it.
    assert np.corrcoef(start.ravel(), out.ravel())[0, 1] < 0.95


def test_noise_is_standard_normal_and_differs_by_key_and_step():
    noise = normal_noise(keys(64), (64, 8, 8, 3))
    first, second = np.asarray(noise(0)), np.asarray(noise(1))
    for values in (first, second):
        assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    flat = np.concatenate([first, second]).reshape(128, -1)
    off_diagonal = np.corrcoef(flat)[~np.eye(128, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.45


def test_noise_and_churned_samples_depend_on_the_example_alone():
    all_keys, start = keys(5), images(1, n=5)
    process = PROCESSES["vp"]
    how = Sampling("heun", steps=6, churn_step_ratio=0.33)
    stepper, nodes = how.stepper(), how.nodes(process)

    @jax.jit
    def run(x, keys):
        noise = normal_noise(keys, x.shape)
        return solve(stepper, process, gaussian_problem(process, x), x, nodes, noise), noise(2)

    rows = np.array([3, 1])
    (whole, whole_noise), (part, part_noise) = run(start, all_keys), run(start[rows], all_keys[rows])
    np.testing.assert_array_equal(part_noise, whole_noise[rows])
    np.testing.assert_allclose(part, whole[rows], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run(start, all_keys)[0], whole)
    other, _ = run(start, keys(5, seed=1))
    assert np.abs(other - whole).max() > 0.01


def test_each_step_draws_its_own_noise_once():
    drawn = []

    def noise(step):
        jax.debug.callback(lambda i: drawn.append(int(i)), step)
        return jnp.zeros((2, 2, 2, 1))

    problem, how = constant_problem(), Sampling("heun", steps=5, churn_step_ratio=0.33)
    solve(how.stepper(), PROCESSES["vp"], problem, problem.xT, how.nodes(PROCESSES["vp"]), noise)
    jax.effects_barrier()
    assert sorted(i for i in drawn if i != START) == [0, 1, 2, 3, 4]
    assert drawn.count(START) <= 1


def test_a_stochastic_sampler_asks_for_noise():
    problem, how = constant_problem(), Sampling("euler", steps=3, churn_step_ratio=0.33)
    with pytest.raises(ValueError, match="noise"):
        solve(how.stepper(), PROCESSES["vp"], problem, problem.xT, how.nodes(PROCESSES["vp"]))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["vp", "ve", "ddpm"])
def test_fresh_noise_keeps_the_marginals(name, eta):
    process, n = {**PROCESSES, "ddpm": DDPM}[name], 20_000
    first, last = LEVELS[name]
    xT = jnp.full((n, 1, 1, 1), -0.7)
    mean, std = moments(process, xT, first)
    start = mean + std * jax.random.normal(jax.random.key(5), xT.shape)
    nodes = np.linspace(first, last, 301)
    stepper, noise = Sampling("exponential", eta=eta).stepper(), normal_noise(keys(n), xT.shape)
    out = jax.jit(lambda x: solve(stepper, process, gaussian_problem(process, xT), x, nodes, noise))(start)
    mean, std = (float(jnp.mean(v)) for v in moments(process, xT, last))
    assert abs(out.mean() - mean) < 0.03 * std
    assert abs(out.std() / std - 1) < 0.025


@dataclasses.dataclass(frozen=True)
class TellsNoise:
    """An auto-encoder whose code is the noise that it is given."""

    latent_dim: int = 48

    def encode(self, variables, images, noise):
        return noise


def test_the_noise_of_a_sampled_code_is_not_that_of_a_step_or_of_a_start():
    numbers, x = np.arange(3), np.zeros((3, 4, 4, 3), np.float32)
    of_code = compiled.encode_sample(TellsNoise(), {}, x, numbers, seed=np.int32(0))
    noise = normal_noise(compiled._image_keys(np.int32(0), numbers), x.shape)
    for step in (START, 0, 1, 127):
        correlation = np.corrcoef(np.ravel(of_code), np.ravel(noise(step)))[0, 1]
        assert abs(correlation) < 0.4, step  # 144 numbers: 0.083 is one deviation
