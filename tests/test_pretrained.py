"""The small weights in pretrained/: they open without a run, and do what their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest

import diffrep_jax
from diffrep_jax.data import open_dataset

FOLDERS = sorted(path.parent for path in Path(__file__).parents[1].glob("pretrained/*/config.json"))
IMAGES = 60  # of the 297 that the card's numbers are of


def test_they_are_small():
    assert len(FOLDERS) >= 2
    sizes = [sum(path.stat().st_size for path in folder.rglob("*")) for folder in FOLDERS]
    assert max(sizes) < 5_000_000 and sum(sizes) < 15_000_000


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_they_reconstruct_as_the_card_says(folder):
    card = (folder / "README.md").read_text()
    mse, of_mean = (
        float(re.search(rf"\| {name} \| ([\d.e-]+) \|", card)[1]) for name in ("mse", r"mse\\_of\\_mean\\_image")
    )
    test = open_dataset("digits", split="test", image_size=16, channels=1)
    images = np.stack([test[i]["image"] for i in range(IMAGES)])
    model = diffrep_jax.load(folder)
    z = model.encode(images)
    again = model.decode(z, model.endpoint(z))
    error = (((np.clip(again, -1, 1) + 1) / 2 - images / 255.0) ** 2).mean()
    assert error == pytest.approx(mse, rel=0.25) and error < 0.4 * of_mean


def test_no_path_of_a_machine_is_left_in_them():
    for folder in FOLDERS:
        assert not re.search(
            r"/(tmp|home|root|work)/", (folder / "config.json").read_text() + (folder / "README.md").read_text()
        )
