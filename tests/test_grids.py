"""Grids of times: official numbers, what they begin and end with, and settings that are refused."""

from pathlib import Path

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.samplers import Sampling
from tests.gaussian_data import DDPM, DITI, PROCESSES

GOLDEN = np.load(Path(__file__).parent / "golden" / "bridge.npz")


def nodes_of(grid, process, steps, upward=False):
    return Sampling(grid=grid, steps=steps).nodes(process, upward)


@pytest.mark.parametrize("steps", [5, 40])
def test_karras_nodes_meet_the_official_numbers(steps):
    nodes = nodes_of("karras", PROCESSES["vp"], steps)
    np.testing.assert_allclose(nodes, GOLDEN[f"karras_sigmas_vp_n{steps}"], rtol=1e-9, atol=0)


@pytest.mark.parametrize("process", PROCESSES.values())
@pytest.mark.parametrize("steps", [1, 2, 30])
def test_karras_nodes_fall_from_below_T_to_zero(process, steps):
    nodes = nodes_of("karras", process, steps)
    assert nodes.shape == (steps + 1,) and nodes.dtype == np.float64
    assert nodes[-1] == 0 and 0 < nodes[0] < process.t_max
    assert np.isclose(nodes[0], process.t_max - 1e-4)
    assert np.all(np.diff(nodes) < 0)
    if steps > 1:
        assert np.isclose(nodes[-2], process.t_min)


def test_karras_steps_shrink_towards_zero():
    steps = -np.diff(nodes_of("karras", PROCESSES["ve"], 30))
    assert np.all(np.diff(steps[:-1]) < 0)


def test_ddim_grids_meet_the_official_numbers():
    up = nodes_of("ddim_linspace", DDPM, 8, upward=True)
    np.testing.assert_array_equal(up, DITI["ddim8_timesteps"])
    np.testing.assert_array_equal(nodes_of("ddim_linspace", DDPM, 8), DITI["ddim8_timesteps"][::-1])
    np.testing.assert_array_equal(nodes_of("ddim_range", DDPM, 4), [750, 500, 250, 0, -1])
    np.testing.assert_array_equal(nodes_of("ddim_range", DDPM, 4, upward=True), [0, 250, 500, 750, 1000])
    assert len(nodes_of("ddim_range", DDPM, 300)) == 1 + len(range(0, 1000, 3))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: nodes_of("karas", PROCESSES["vp"], 5), ["'karas'", "Did you mean 'karras'"]),
        (lambda: nodes_of("karras", PROCESSES["vp"], 0), ["sampling.steps 0", "[1, "]),
        (lambda: nodes_of("karras", PROCESSES["vp"], -3), ["sampling.steps -3", "[1, "]),
        (lambda: nodes_of("ddim_range", PROCESSES["vp"], 10), ["ddim_range", "grid=karras"]),
        (lambda: nodes_of("ddim_linspace", DDPM, 1000), ["steps 1000", "ddim_linspace"]),
        (lambda: nodes_of("ddim_range", DDPM, 1001), ["steps 1001"]),
        (lambda: nodes_of("karras", DDPM, 1, upward=True), ["steps 1", "no step upward", "at least 2"]),
    ],
)
def test_settings_that_do_not_fit_are_named(call, says):
    with pytest.raises(UserError) as error:
        call()
    assert all(part in str(error.value) for part in says), error.value
