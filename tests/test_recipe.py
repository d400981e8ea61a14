"""The recipe of sampling: what it is made of, and settings that it refuses with the value and the remedy."""

import dataclasses

import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.fields import construct
from diffrep_jax.samplers import Sampling, samplers
from diffrep_jax.samplers.grids import GRIDS
from tests.gaussian_data import DDPM, PROCESSES


def test_every_sampler_file_holds_a_sampler():
    assert {"euler", "heun", "exponential"} <= set(samplers())
    for name in samplers():
        stepper = Sampling(name).stepper()
        assert isinstance(stepper.stochastic, bool)
        assert Sampling(name).stepper() == stepper and hash(Sampling(name).stepper()) == hash(stepper)
        if not stepper.memory:
            churned = Sampling(name, churn_step_ratio=0.3).stepper()
            assert churned.stochastic and not churned.inverse and churned != stepper


@pytest.mark.parametrize(
    "fields, says",
    [
        # names
        ({"sampler": "huen"}, ["'huen'", "sampling.sampler", "Did you mean 'heun'", "euler"]),
        ({"sampler": "churn"}, ["'churn'", "heun"]),
        ({"sampler": "driver"}, ["'driver'", "heun"]),
        ({"sampler": None}, ["'None'", "heun"]),
        ({"sampler": ["heun"]}, ["heun", "sampling.sampler"]),
        ({"grid": "karas"}, ["'karas'", "sampling.grid", "Did you mean 'karras'"]),
        ({"grid": ["karras"]}, ["karras", "sampling.grid"]),
        # churn
        ({"sampler": "heun", "churn_step_ratio": 1.0}, ["churn_step_ratio 1.0", "[0, 1)"]),
        ({"sampler": "heun", "churn_step_ratio": -0.1}, ["churn_step_ratio -0.1", "[0, 1)"]),
        ({"sampler": "heun", "churn_step_ratio": float("nan")}, ["churn_step_ratio nan", "[0, 1)"]),
        ({"sampler": "heun", "churn_step_ratio": "0.3"}, ["sampling.churn_step_ratio '0.3'", "number"]),
        ({"sampler": "heun", "churn_step_ratio": None}, ["sampling.churn_step_ratio None", "number"]),
        # eta
        ({"eta": -1.0}, ["eta -1.0", "below 0"]),
        ({"eta": float("nan")}, ["eta nan"]),
        ({"eta": float("inf")}, ["eta inf"]),
        ({"eta": "1"}, ["sampling.eta '1'", "number"]),
        ({"eta": True}, ["sampling.eta True", "number"]),
        # what does not go together
        ({"sampler": "heun", "eta": 0.5}, ["eta 0.5", "heun", "sampler=exponential", "eta=0.0"]),
        ({"sampler": "euler", "eta": 1}, ["eta 1", "euler", "sampler=exponential"]),
        ({"churn_step_ratio": 0.33, "eta": 0.5}, ["churn_step_ratio 0.33", "exponential", "noise of its own", "to 0"]),
        ({"sampler": "heun", "order": 2}, ["order 2", "heun", "sampler=exponential", "order=1"]),
        ({"sampler": "euler", "corrector": True}, ["corrector True", "euler", "sampler=exponential"]),
        ({"sampler": "heun", "clock": "log_rho"}, ["clock log_rho", "heun", "sampler=exponential", "clock=lambda"]),
        # the exponential sampler's own, and the start
        ({"order": "2"}, ["order '2'"]),
        ({"order": 4}, ["order 4"]),
        ({"order": True}, ["order True"]),
        ({"clock": "lamda"}, ["'lamda'", "Did you mean 'lambda'"]),
        ({"clock": ["lambda"]}, ["lambda", "clock"]),
        ({"corrector": "yes"}, ["corrector", "'yes'"]),
        ({"start": "nois"}, ["'nois'", "sampling.start", "Did you mean 'noise'"]),
        ({"start": ["noise"]}, ["noise", "sampling.start"]),
        # counts
        ({"steps": 0}, ["sampling.steps 0", "[1, 100000]"]),
        ({"steps": 100_001}, ["sampling.steps 100001"]),
        ({"steps": 10.0}, ["sampling.steps 10.0", "whole number"]),
        ({"steps": True}, ["sampling.steps True", "whole number"]),
        ({"steps": "10"}, ["sampling.steps '10'", "whole number"]),
        ({"seed": -1}, ["sampling.seed -1", "[0, 2147483647]"]),
        ({"seed": 2**31}, ["sampling.seed 2147483648", "[0, 2147483647]"]),
        ({"seed": 0.5}, ["sampling.seed 0.5", "whole number"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields, says):
    with pytest.raises(UserError) as error:
        Sampling(**fields)
    assert all(part in str(error.value) for part in says), error.value


def test_a_field_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="Unknown field 'step' in config.sampling.*Did you mean 'steps'"):
        construct(Sampling, {"step": 3}, "config.sampling")


def test_the_ends_of_all_ranges_are_taken():
    for fields in ({"steps": 1}, {"steps": 100_000}, {"seed": 0}, {"seed": 2**31 - 1}, {"eta": 1}, {"eta": 0}):
        assert dataclasses.asdict(Sampling(**fields)) == dataclasses.asdict(Sampling()) | fields
    assert Sampling("heun", churn_step_ratio=0).stepper() == Sampling("heun").stepper()


def test_encoding_keeps_the_grid_and_takes_a_sampler_that_runs_upward():
    for how in (Sampling("heun", "karras", 10, seed=3), Sampling("euler", churn_step_ratio=0.5, seed=3)):
        assert how.inverted(25) == Sampling("exponential", "karras", 25, seed=3)
    assert Sampling(grid="ddim_range", eta=1.0).inverted(7) == Sampling("exponential", "ddim_range", 7)
    for name in samplers():
        assert Sampling(name, steps=9).inverted(9).stepper().inverse


@pytest.mark.parametrize("process", [*PROCESSES.values(), DDPM])
def test_the_way_up_is_the_way_down_turned_round(process):
    """But for its ends: x_0 counts as the first node's state; the grids of DiTi and DiffAE go on to the noise alone."""
    for grid in GRIDS:
        if process.steps is None and grid.startswith("ddim"):
            with pytest.raises(UserError, match=f"{grid}.*grid=karras"):
                Sampling(grid=grid, steps=5).nodes(process)
            continue
        how = Sampling(grid=grid, steps=5)
        down, up = how.nodes(process), how.nodes(process, upward=True)
        kept = down[down > process.t_data][::-1]
        assert up[: len(kept)].tolist() == kept.tolist()
        assert up[len(kept) :].tolist() == ([process.t_noise] if grid in ("ddim_range", "ddim_space") else [])
