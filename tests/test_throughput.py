"""The benchmark runs for methods with and without a code, and says what it measured."""

import pytest

from benchmarks import throughput
from configs import ddpm_digits, latent_prior_digits


def tiny(module):
    config = module.get_config().unlock()
    if config.method.name == "ddpm":
        config.data.image_size = 8
        config.method.unet.update(width=8, mult=(1,), attention=())
    else:
        config.data.channels = 6
        config.method.mlp.update(width=16, layers=3)
    config.tasks.sample.steps = 2
    return config.lock()


@pytest.mark.parametrize("what", ["train", "sample"])
@pytest.mark.parametrize("module", [ddpm_digits, latent_prior_digits], ids=["ddpm", "latent prior"])
def test_methods_without_a_code_are_measured(module, what, monkeypatch):
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: (1e9, "given"))  # takes seconds
    row = throughput.measure(tiny(module), what, batch_size=2, repeats=2)
    assert row["images_per_second"] == pytest.approx(2 / row["seconds"])
    assert 0 < row["seconds_min_max"][0] <= row["seconds"] <= row["seconds_min_max"][1]
    assert row["gflop_per_image"] > 0 and row["what"] == what
