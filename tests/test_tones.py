"""benchmarks/tones.py: skin tones are told apart where the codes have them, by chance where they do not."""

import numpy as np
import pytest

from benchmarks import tones
from diffrep_jax.data import open_dataset
from tests.made_data import emoji_package, write_folder

TONES = 6


def codes(signal, seed):
    rng, classes = np.random.default_rng(seed), np.arange(360) % TONES
    return (np.eye(TONES)[classes] * signal + rng.normal(size=(360, TONES))).astype(np.float32), classes


@pytest.mark.parametrize(("signal", "least", "most"), [(8.0, 0.999, 1.0), (0.0, 0.08, 0.26)])
def test_the_accuracy_is_that_of_what_the_codes_hold(signal, least, most):
    assert least <= tones.accuracy(codes(signal, 0), codes(signal, 1)) <= most


def test_pictures_of_one_skin_tone_are_taken(tmp_path):
    write_folder(tmp_path / "package", emoji_package())
    dataset = open_dataset("emoji", split="all", image_size=8, channels=3, data_dir=tmp_path, attributes=True)
    assert tones.has_tones(dataset.attribute_names) and not tones.has_tones(("slant", "skinny"))
    rows, classes = tones.tones(np.stack([example["attributes"] for example in dataset]), dataset.attribute_names)
    assert [(classes == tone).sum() for tone in range(TONES)] == [6] * TONES
    assert all(dataset.attribute_names[np.flatnonzero(dataset[row]["attributes"])[0]] for row in rows)


def test_two_tones_in_one_picture_are_left_out():
    rows, classes = tones.tones(np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]]), ("a skin", "b skin", "woman"))
    assert rows.tolist() == [0, 1] and classes.tolist() == [0, 1]
