"""Configs whose image size is a variant: the networks of that size, and what goes with it."""

import re

import pytest

from diffrep_jax import config as configs
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build


def load(spec):
    """A config of the folder, by its name without `.py`."""
    name, colon, variant = spec.partition(":")
    return configs.load_file(f"configs/{name}.py{colon}{variant}")


@pytest.mark.parametrize("name", ["dbae_emoji", "ddpm_emoji", "diti_emoji"])
def test_the_emoji_configs_are_sized_by_a_variant(name):
    assert (load(name).data.image_size, load(f"{name}:size=64").method.image_size) == (64, 64)
    config = load(f"{name}:size=32")
    assert (config.data.image_size, config.method.image_size, config.method.dtype) == (32, 32, "float32")
    configs.override(config, {"train.total_steps": "70"})
    assert config.optim.decay_steps == 70
    with pytest.raises(UserError, match=re.escape("value of variant size '48'") + ".*Known: 32, 64"):
        load(f"{name}:size=48")
    with pytest.raises(UserError, match="Unknown variant 'siez'.*size"):
        load(f"{name}:siez=32")


def test_ones_own_images_have_the_networks_of_their_size():
    for size, published in ((256, "dbae_ffhq256"), (128, "dbae_ffhq"), (64, "dbae_celeba")):
        config = load(f"dbae_folder:size={size}")
        assert config.data.image_size == size
        assert config.method.to_dict() == load(published).method.to_dict()
    assert load("dbae_folder:size=32").method.to_dict() == load("dbae_emoji:size=32").method.to_dict()


def test_the_self_supervised_loss_of_diti_emoji_is_in_all_steps():
    for size in (64, 32):
        config = load(f"diti_emoji:size={size},ssl=simclr")
        assert (config.method.ssl.start_step, config.optim.ssl.decay_steps) == (0, config.train.total_steps)
        build(config.method)
