"""docs/official_commands.md: each official command has a row, and each row's command is one that we have."""

import re
from pathlib import Path

import pytest

from diffrep_jax import config as configs
from diffrep_jax import sections
from diffrep_jax.inference.open import recipe
from diffrep_jax.methods.base import build
from diffrep_jax.tasks import base as tasks
from launch import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "official_commands.md").read_text()
ROWS = [
    (section, *re.fullmatch(r"\| (.+?) \| `(--.+?)` \|.*\|", line).groups())
    for section, body in re.findall(r"^## (\w+) .*?\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    for line in body.splitlines()
    if line.startswith("| ") and "| `--" in line
]
RUNS = {"DBAE": "dbae_ffhq", "PDAE": "pdae_ffhq", "DiTi": "diti_celeba", "DiffAE": "diffae_ffhq"}

# The files of the repositories that a user starts; what they import is left out.
STARTED = {
    "DBAE": "train_dbae.sh infer_class_dbae.sh infer_reg_dbae.sh recon_dbae.sh eval_reconstruction.py interpol_dbae.sh "
    "manipul_dbae.sh",
    "PDAE": "dist_train_regular_diffusion.sh dist_train_representation_learning.sh dist_train_manipulation.sh "
    "dist_train_latent_diffusion.sh infer_latents.py autoencoding_example.py autoencoding_eval.py denoise_one_step.py "
    "gap_measure.py interpolation.py manipulation.py unconditional_sample.py test_dpms.py",
    "DiTi": "train_representation_learning.py multitask_classification.py attribute_regression.py "
    "counterfactual_generation.py manipulation.py DiTi_celeba_interpolation.ipynb DiTi_celeba_manipulation.ipynb",
    "DiffAE": "run_ffhq128.py run_ffhq256.py run_bedroom128.py run_horse128.py run_celeba64.py run_ffhq128_ddim.py "
    "run_bedroom128_ddim.py run_horse128_ddim.py run_ffhq256_latent.py run_ffhq128_cls.py run_ffhq256_cls.py "
    "sample.ipynb interpolate.ipynb manipulate.ipynb manipulate_note.ipynb autoencoding.ipynb predict.py "
    "data_resize_ffhq.py",
}


@pytest.mark.parametrize("section", STARTED)
def test_every_file_that_is_started_has_a_row(section):
    named = " ".join(theirs for place, theirs, _ in ROWS if place == section)
    missing = [name for name in STARTED[section].split() if not re.search(rf"(?<!\w){re.escape(name)}", named)]
    assert not missing


@pytest.mark.parametrize("section, theirs, command", ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_the_command_is_one_that_there_is(section, theirs, command):
    """Its config loads, its fields are there, and its task and recipe take their values."""
    flags, overrides = main.parse(command.split())
    of_base = flags.workdir == "BASE" and flags.config is None
    path = flags.config or f"configs/{'ddpm_ffhq' if of_base else RUNS[section]}.py:"
    if section == "DBAE" and flags.config is None:
        path += "encoder=stochastic"
    config = configs.load_file(str(ROOT / path))
    configs.override(config, overrides)
    sections.check(config)
    method, how = build(config.method), recipe(config)
    how.plan(method.process)
    if how.encode == "sample":
        assert method.encodes_noise
    if flags.task == "train":
        assert flags.workdir in ("RUN", "BASE", "PRIOR")
        return
    paths = {name: getattr(flags, name) for name in tasks.PATHS}
    task = tasks.build(flags.task, config.tasks[flags.task], paths)
    if steps := getattr(task, "invert_steps", 0):
        how.inverted(steps).plan(method.process, upward=True)


def test_no_row_is_left_unread():
    lines = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| theirs", "|---"))]
    assert len(lines) == len(ROWS) > 40
