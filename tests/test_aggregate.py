"""Codes drawn from all training codes together: their moments, their neighbours, and what becomes of them."""

import json

import numpy as np
import pytest

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from diffrep_jax.tasks.sample import Aggregate
from tests.coded_models import opened, small_config

RANDOM = np.random.default_rng(0)
MIXING = RANDOM.normal(size=(3, 3)) + 2 * np.eye(3)
CODES = RANDOM.exponential(size=(500, 3)) @ MIXING


def test_a_gaussian_has_the_moments_of_the_codes():
    drawn = Aggregate(CODES, None, 0).generate(20_000, 0)
    np.testing.assert_allclose(drawn.mean(0), CODES.mean(0), atol=0.06)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(CODES.T), rtol=0.06, atol=0.1)
    flat = np.concatenate([CODES, CODES[:, :1]], axis=1)  # singular: a dimension twice
    drawn = Aggregate(flat, None, 0).generate(50, 0)
    np.testing.assert_allclose(drawn[:, 0], drawn[:, 3], atol=1e-4)


def test_a_kernel_stays_round_the_codes():
    np.testing.assert_array_less(0, _distance(Aggregate(CODES, 0.1, 0).generate(100, 0)))
    np.testing.assert_allclose(_distance(Aggregate(CODES, 0.0, 0).generate(100, 0)), 0, atol=1e-6)
    drawn = Aggregate(CODES[:1].repeat(2, 0) + [[-1, -2, -3], [1, 2, 3]], 0.5, 0).generate(20_000, 0)
    np.testing.assert_allclose(drawn.std(0), [np.sqrt(1 + 0.25) * k for k in (1, 2, 3)], rtol=0.02)


def _distance(drawn):
    return np.linalg.norm(drawn[:, None] - CODES, axis=-1).min(1)


@pytest.mark.parametrize("bandwidth", [None, 0.3])
def test_a_code_goes_by_seed_and_number(bandwidth):
    density = Aggregate(CODES, bandwidth, 3)
    np.testing.assert_array_equal(density.generate(4, 0)[2:], density.generate(2, 2))
    assert np.abs(density.generate(4, 0) - Aggregate(CODES, bandwidth, 4).generate(4, 0)).min() > 0


def test_the_task_decodes_them(tmp_path):
    config = small_config("diffae")
    model = opened(config)
    with config.unlocked():
        config.tasks.sample.update(num_images=4, batch_size=4, aggregate="kernel", bandwidth=0.0)
    run_config.save(config, tmp_path)
    base.build("sample", config.tasks.sample, {}).run(model, Run.at(tmp_path, config))
    numbers = json.loads((tmp_path / "sample" / "metrics.json").read_text())
    assert (numbers["aggregate"], numbers["training_codes"], numbers["bandwidth"]) == ("kernel", 1500, 0.0)
    with (
        np.load(tmp_path / "sample" / "samples.npz") as made,
        np.load(tmp_path / "encode" / "digits_train.npz") as kept,
    ):
        assert np.linalg.norm(made["codes"][:, None] - kept["codes"], axis=-1).min(1).max() < 1e-6
        assert np.abs(to_uint8(model.decode_generated(made["codes"])).astype(int) - made["images"]).max() <= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aggregate": "gausian"}, "Did you mean 'gaussian'"),
        ({"aggregate": "kernel", "prior": "runs/prior"}, "are two densities of codes; leave one out"),
        ({"bandwidth": -0.1}, "tasks.sample.bandwidth is -0.1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        base.build("sample", small_config("pdae").tasks.sample.to_dict() | settings, {})


def test_a_ddpm_has_no_codes_to_draw_from(tmp_path):
    config = small_config("ddpm")
    with config.unlocked():
        config.tasks.sample.update(aggregate="gaussian")
    with pytest.raises(UserError, match="DDPM run has no codes"):
        base.build("sample", config.tasks.sample, {}).run(opened(config), Run.at(tmp_path, config))
