"""DBAE's training times: the paper's uniform ones, and the part that is uniform in lambda."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy import stats

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from tests.tiny import tiny_config

N = 4000


def times(part, bridge="vp"):
    method = dataclasses.replace(build(tiny_config().method), lambda_times=part, bridge=bridge)
    drawn = jax.jit(method._sample_times)(jax.random.split(jax.random.key(0), N))
    return np.asarray(drawn, np.float64), method.process


def uniformity(values, low, high):
    """The p-value of the hypothesis that they are uniform on [low, high]."""
    return stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue


@pytest.mark.parametrize("bridge", ["vp", "ve"])
def test_the_papers_times_are_uniform(bridge):
    t, process = times(0.0, bridge)
    assert uniformity(t, process.t_min, process.t_max) > 0.01
    assert t.max() < process.t_max


@pytest.mark.parametrize("bridge", ["vp", "ve"])
def test_the_others_are_uniform_in_lambda_down_to_where_sampling_begins(bridge):
    t, process = times(1.0, bridge)

    def clock(t):
        _, b, c = (np.asarray(k, np.float64) for k in process.coefficients(t))
        return np.log(b / c)

    low, high = clock(np.float64(process.t_max - 1e-4)), clock(np.float64(process.t_min))
    assert uniformity(clock(t), low, high) > 0.01


def test_a_part_is_a_part():
    """Of uniform times 10 % are above 0.9 T; of those uniform in lambda the rest."""
    share = [float((times(part)[0] > 0.9).mean()) for part in (0.0, 0.25, 1.0)]
    assert share[0] == pytest.approx(0.1, abs=0.02) and share[2] > 0.3
    assert share[1] == pytest.approx(0.75 * share[0] + 0.25 * share[2], abs=0.03)


@pytest.mark.parametrize("part", [-0.1, 1.5, "all"])
def test_what_is_no_part_is_refused(part):
    config = tiny_config()
    with config.unlocked():
        config.method.lambda_times = part
    with pytest.raises(UserError, match="config.method.lambda_times"):
        build(config.method)
