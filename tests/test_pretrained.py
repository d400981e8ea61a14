"""The small weights in pretrained/: they open without a run, and do what their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest

import diffrep_jax
from diffrep_jax.data import open_dataset

FOLDERS = sorted(path.parent for path in Path(__file__).parents[1].glob("pretrained/*/config.json"))
PRIORS = [folder for folder in FOLDERS if folder.name.startswith("prior_")]
CODED = [folder for folder in FOLDERS if folder not in PRIORS]
IMAGES = 60  # of the 297 that the card's numbers are of


def test_they_are_small():
    assert len(FOLDERS) >= 2
    weights = [path.stat().st_size for folder in FOLDERS for path in folder.glob("*.safetensors")]
    assert max(weights) < 5_000_000
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.rglob("*")) < 15_000_000


@pytest.mark.parametrize("folder", CODED, ids=lambda folder: folder.name)
def test_they_reconstruct_as_the_card_says(folder):
    card = (folder / "README.md").read_text()
    mse, of_mean = (
        float(re.search(rf"\| {name} \| ([\d.e-]+) \|", card)[1]) for name in ("mse", r"mse\\_of\\_mean\\_image")
    )
    model = diffrep_jax.load(folder)
    shape = {"image_size": model.image_size, "channels": model.channels}
    if "digits" in folder.name:
        test, count, tolerance = open_dataset("digits", split="test", **shape), IMAGES, 0.25
    else:  # the examples alone are at hand
        test, count, tolerance = open_dataset("folder", split="all", data_dir=folder / "examples", **shape), 16, 0.5
    images = np.stack([test[i]["image"] for i in range(count)])
    z = model.encode(images)
    again = model.decode(z, model.endpoint(z))
    error = (((np.clip(again, -1, 1) + 1) / 2 - images / 255.0) ** 2).mean()
    assert error == pytest.approx(mse, rel=tolerance) and error < 0.4 * of_mean


def test_no_path_of_a_machine_is_left_in_them():
    for folder in FOLDERS:
        assert not re.search(
            r"/(tmp|home|root|work)/", (folder / "config.json").read_text() + (folder / "README.md").read_text()
        )


@pytest.mark.parametrize("folder", CODED, ids=lambda folder: folder.name)
def test_heads_and_examples_are_theirs(folder):
    model = diffrep_jax.load(folder)
    heads = diffrep_jax.load_heads(folder, model)
    shape = {"image_size": model.image_size, "channels": model.channels}
    images = open_dataset("folder", split="all", data_dir=folder / "examples", **shape)
    assert "classes" in heads and len(images) >= 12


def test_the_prior_makes_codes_as_the_digits_have_them():
    """Of 64 made codes, each dimension's mean and deviation are near those of the training codes."""
    model = diffrep_jax.load(PRIORS[0].with_name("dbae_digits"))
    prior = diffrep_jax.load(PRIORS[0])
    model.check_prior(prior, PRIORS[0].name)
    known = diffrep_jax.load_heads(PRIORS[0].with_name("dbae_digits"), model)["classes"]
    codes = prior.generate(64)
    assert np.abs((codes.mean(0) - known.mean) / known.std).mean() < 0.2  # 0.1 would be chance
    assert (codes.std(0) / known.std).mean() == pytest.approx(1, abs=0.15)
