"""The table of few steps: its classifier's space, its arguments, what is written of rows."""

import argparse
import dataclasses
import json
import types

import numpy as np
import pytest
from PIL import Image

from benchmarks import few_steps
from diffrep_jax.errors import UserError
from diffrep_jax.samplers import Sampling

PIXELS = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 1), np.uint8)


class Pictures(list):
    name = "pictures"


@pytest.mark.parametrize("field", ["label", "attributes"])
def test_a_classifier_of_classes_or_attributes_tells_sets_apart(field):
    bright = PIXELS.mean((1, 2, 3)) > 127
    values = bright.astype(int) if field == "label" else np.stack([bright, ~bright], 1).astype(np.float32)
    features = few_steps.classifier(Pictures({"image": x, field: y} for x, y in zip(PIXELS, values, strict=True)))
    same, other, dark = (few_steps.OfClassifier(features) for _ in range(3))
    same.update(PIXELS)
    other.update(PIXELS[:40])
    other.update(PIXELS[40:])
    dark.update(PIXELS // 2)
    assert other.count == 80 and abs(other.distance(same)) < 1e-6 < dark.distance(same)


def test_pictures_without_classes_are_refused():
    with pytest.raises(UserError, match="pictures has no classes or attributes"):
        few_steps.classifier(Pictures([{"image": PIXELS[0]}]))


def test_more_counts_are_of_a_recipe():
    assert few_steps.also("Euler, churn 0.33=666") == ("Euler, churn 0.33", (666,))
    assert few_steps.also("Euler=50,100") == ("Euler", (50, 100))
    for text in ("euler=50", "Euler", "Euler=", "Euler=5x", "Euler=-5"):
        with pytest.raises(argparse.ArgumentTypeError, match="is not NAME=COUNT"):
            few_steps.also(text)


def test_every_recipe_is_one():
    for changes, random in few_steps.RECIPES.values():
        how = Sampling(**few_steps.ORDER_1 | changes)
        assert random == (how.churn_step_ratio > 0 or how.eta > 0)


def test_rows_become_a_table_and_curves(tmp_path):
    how = dataclasses.asdict(Sampling()) | {"images": 80, "dataset": "pictures", "lpips": None, "to_fine": None}
    values = {"ssim": 0.5, "psnr": 20.0, "frechet": 1.0}
    rows = [{"recipe": "Euler", "evaluations": n, "mse": 0.1 / n} | values | how for n in (1, 10)]
    mesh = types.SimpleNamespace(size=1, devices=np.array([types.SimpleNamespace(device_kind="cpu")], dtype=object))
    few_steps.write(tmp_path / "t.md", rows, "the command", types.SimpleNamespace(method=0, mesh=mesh))
    text = (tmp_path / "t.md").read_text()
    assert "| recipe | evaluations | MSE | SSIM | PSNR | Frechet |" in text and "to fine" not in text
    assert "| Euler | 10 | 0.01000 | 0.5000 | 20.00 | 1.000 |" in text and "80 held-out images of pictures" in text
    assert json.loads((tmp_path / "t.json").read_text()) == rows
    assert Image.open(tmp_path / "t.png").size == (1440, 880)


def test_a_recipe_has_one_colour_in_all_panels(monkeypatch):
    drawn = []

    def chart(lines, *names, **axes):
        drawn.append({name: len(points) for name, points in lines.items()})
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(few_steps, "line_chart", chart)
    values = {"evaluations": 5, "mse": 0.1, "ssim": 0.5, "frechet": 1.0}
    rows = [{"recipe": "eta 1", "to_fine": None} | values, {"recipe": "order 1", "to_fine": 0.1} | values]
    few_steps.curves(rows)
    assert [list(lines) for lines in drawn] == [["eta 1", "order 1"]] * 4  # colours go by the place
    assert drawn[2] == {"eta 1": 0, "order 1": 1}


def test_a_recipe_that_is_left_out_beside_others_is_drawn_alone():
    row = {"recipe": "order 3", "evaluations": 5, "mse": 0.1, "ssim": 0.5, "frechet": 1.0}
    assert few_steps.curves([row, row | {"evaluations": 10}]).std() > 0
