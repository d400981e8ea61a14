"""docs/official_configs.md: every official YAML file has a row, and every row's command builds the config it should."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from diffrep_jax import config as configs
from diffrep_jax.methods.base import build
from diffrep_jax.tasks import base as tasks
from launch import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "official_configs.md").read_text()
ROWS = [
    (section, *re.fullmatch(r"\| `(.+?)` \| `(.+)` \|", line).groups())
    for section, body in re.findall(r"^## (\w+) .*?\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    for line in body.splitlines()
    if line.startswith("| `") and "| `--" in line
]

# What the files say, DiTi's rates as its trainer scales them: learning rate, images a step, images in all in millions
# (None: without an end).
PUBLISHED = {
    "PDAE": {
        "celeba64_representation_learning.yml": (1e-4, 128, None),
        "ffhq_representation_learning.yml": (1e-4, 128, None),
        "bedroom_representation_learning.yml": (1e-4, 128, None),
        "horse_representation_learning.yml": (1e-4, 128, None),
        "celeba64_latent.yml": (1e-3, 512, None),
        "ffhq_latent.yml": (1e-3, 512, None),
        "bedroom_latent.yml": (1e-3, 512, None),
        "horse_latent.yml": (1e-3, 512, None),
        "celebahq_manipulation.yml": None,  # of a classifier
        "mnist_regular.yml": (1e-4, 128, None),
    },
    "DiTi": {
        "celeba64/pdae.yml": (2e-4, 128, 38),
        "celeba64/diti64.yml": (2e-4, 128, 38),
        "celeba64/diti64_balanced.yml": (2e-4, 128, 38),
        "celeba64/diti64_stopgrad.yml": (2e-4, 128, 60),
        "celeba64/diti64_balanced_stopgrad.yml": (2e-4, 128, 38),
        "celeba64/simclr.yml": (2e-4, 128, 38),
        "celeba64/simclr_without_aug.yml": (2e-4, 128, 38),
        "celeba64/simsiam.yml": (2e-4, 128, 38),
        "ffhq/pdae.yml": (2e-4, 256, 64),
        "ffhq/diti64.yml": (1e-4, 128, 64),
        "ffhq/diti64_balanced_stopgrad.yml": (1e-4, 128, 64),
        "ffhq/simclr.yml": (1e-4, 128, 64),
        "ffhq/simsiam.yml": (1e-4, 128, 64),
        "bedroom128/pdae.yml": (5e-5, 128, 70),
        "bedroom128/diti64.yml": (5e-5, 128, 70),
        "bedroom128/diti64_balanced_stopgrad.yml": (5e-5, 128, 70),
    },
}


def parsed(command):
    """(the flags, the config with the overrides; None for a task on a run)."""
    flags, overrides = main.parse(command.split())
    if flags.config is None:
        return flags, None
    config = configs.load_file(str(ROOT / flags.config))
    configs.override(config, overrides)
    return flags, config


@pytest.mark.parametrize("section", PUBLISHED)
def test_every_official_file_has_one_row(section):
    assert sorted(name for place, name, _ in ROWS if place == section) == sorted(PUBLISHED[section])


@pytest.mark.parametrize("section, name, command", ROWS, ids=[f"{section}-{name}" for section, name, _ in ROWS])
def test_the_command_builds_what_the_file_says(section, name, command):
    flags, config = parsed(command)
    if config is None:
        assert flags.task in tasks.names()
        return
    method = build(config.method)
    assert (method.image_size, method.channels) == (config.data.image_size, config.data.channels)
    assert config.data.split in import_module(f"diffrep_jax.data.datasets.{config.data.name}").Dataset.splits
    if section not in PUBLISHED:
        return
    lr, batch, images = PUBLISHED[section][name]
    assert (config.optim.lr, config.train.batch_size, config.optim.ema_decay) == (lr, batch, 0.9999)
    if images is not None:
        assert abs(config.train.total_steps * batch - images * 1e6) < batch
    if "latent" in name:
        assert config.optim.clip_norm == 0  # DiffAE's prior is clipped, PDAE's is not
    stem = Path(name).stem
    if "diti" in stem:
        assert method.mode == ("stop_grad" if "stopgrad" in stem else "base") and method.k == 64
        assert (len(method.stages) == 1) == ("balanced" in stem)
    size = 32 if "mnist" in name else 1 if "latent" in name else 64 if "celeba64" in name else 128
    assert config.data.image_size == size


def test_the_rows_of_the_scripts_are_there():
    names = {name for section, name, _ in ROWS if section == "DBAE"}
    assert {f"train_dbae.sh {data} vp {sto}" for data in ("celeba", "ffhq") for sto in ("true", "false")} <= names
