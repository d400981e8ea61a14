"""Heads of the authors in `manipulate`: each file's logits and direction against the file's own formula."""

import json

import numpy as np
import pytest

from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.port import heads
from diffrep_jax.port.files import Contents
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _heads, base
from tests.coded_models import opened, small_config
from tests.torch_files import write

RANDOM = np.random.default_rng(0)
D, K = 16, 40
W, B = RANDOM.normal(size=(K, D)).astype(np.float32), RANDOM.normal(size=K).astype(np.float32)
LINEAR = {"weight": W, "bias": B}
OTHER = {"weight": W + 1, "bias": B}
MEAN, STD = RANDOM.normal(size=(1, D)).astype(np.float32), RANDOM.uniform(0.5, 2, (1, D)).astype(np.float32)
SCORES = (np.arange(D) % 4 == 0).astype(np.float32)
FILES = {
    "dbae": LINEAR,
    "pdae": {"step": 3, "encoder": {"a": W}, "classifier": OTHER, "ema_classifier": LINEAR},
    "diti": {"classifier": LINEAR, "mask": {"scores": SCORES}, "mask_subnet": SCORES},
    "diffae": {
        "state_dict": {
            "conds_mean": MEAN,
            "conds_std": STD,
            "classifier.weight": W,
            "classifier.bias": B,
            "ema_classifier.weight": W + 1,
            "ema_classifier.bias": B,
        }
    },
}


@pytest.fixture(scope="module")
def model():
    return opened(small_config("diffae"))


class Statistics:
    mean, std = MEAN[0] + 1, STD[0]


@pytest.mark.parametrize("kind", FILES)
def test_the_logits_are_those_of_the_official_code(kind, model, tmp_path):
    path = write(tmp_path / "head.pt", FILES[kind])
    head = _heads.given(run_path(path), model, lambda: Statistics)
    z = RANDOM.normal(size=(5, D)).astype(np.float32)
    mean = {"dbae": 0, "diffae": MEAN}.get(kind, Statistics.mean)
    normal = (z - mean) / (1 if kind == "dbae" else STD)
    weight = W * SCORES if kind == "diti" else W
    np.testing.assert_allclose(head.logits(z), normal @ weight.T + B, rtol=1e-3, atol=1e-4)
    smiling = head.only("Smiling")
    # official: z_norm + s sqrt(d) w / |w|, then brought back; DBAE's z is not normalised
    step = weight[31] / np.linalg.norm(weight[31])
    expected = step if kind == "dbae" else step * STD[0]
    np.testing.assert_allclose(smiling.direction(kind != "dbae"), expected, rtol=1e-4, atol=1e-6)


def run_path(path):
    return Run.at(path, None).folder


def test_the_names_are_those_of_the_attribute_file():
    places = {
        "5_o_Clock_Shadow": 0,
        "Bangs": 5,
        "Eyeglasses": 15,
        "Male": 20,
        "No_Beard": 24,
        "Wavy_Hair": 33,
        "Young": 39,
    }
    assert {name: heads.CELEBA.index(name) for name in places} == places and len(set(heads.CELEBA)) == 40
    assert heads.head(Contents({"": {"weight": W[:2], "bias": B[:2]}}), "x").names == ("0", "1")


def test_an_official_head_needs_no_labels(model, tmp_path):
    write(tmp_path / "best.pt", LINEAR)
    config = small_config("diffae")
    with config.unlocked():
        config.tasks.manipulate.update(num_images=4, batch_size=4, attribute="Smiling", scales=(0.3,), space="raw")
        config.tasks.manipulate.update(head=str(tmp_path / "best.pt"))
    numbers = base.build("manipulate", config.tasks.manipulate, {}).run(model, Run.at(tmp_path, config))
    assert numbers == {"dimensions": D} and not (tmp_path / "encode").exists()
    written = json.loads((tmp_path / "manipulate" / "metrics.json").read_text())
    assert written["head"] == str(tmp_path / "best.pt") and written["attribute"] == "Smiling"
    with np.load(tmp_path / "manipulate" / "arrays.npz") as arrays:
        z = model.encode(arrays["inputs"]) + 0.3 * np.sqrt(D) * W[31] / np.linalg.norm(W[31])
        assert np.abs(to_uint8(model.decode(z)).astype(int) - arrays["images"][0]).max() <= 1
    again = _heads.given(run_path(tmp_path / "manipulate" / "head.npz"), model, lambda: Statistics)  # our own form
    np.testing.assert_allclose(again.kernel[:, 0], W[31], rtol=1e-5)


def test_other_files_are_refused(model, tmp_path):
    def given(content):
        return _heads.given(run_path(write(tmp_path / "x.pt", content)), model, lambda: Statistics)

    with pytest.raises(UserError, match="x.pt reads codes of 3 dimensions, this model's have 16"):
        given({"weight": W[:, :3], "bias": B})
    with pytest.raises(UserError, match="x.pt holds no linear head.*but encoder"):
        given({"encoder": {"a": W}})
    with pytest.raises(UserError, match="nowhere.pt is no file"):
        _heads.given(run_path(tmp_path / "nowhere.pt"), model, lambda: Statistics)
    write(tmp_path / "best.pt", LINEAR)
    head = _heads.given(run_path(tmp_path / "best.pt"), model, lambda: Statistics)
    np.savez(tmp_path / "own.npz", **(head.arrays() | {"fingerprint": head.fingerprint + 1}))
    with pytest.raises(UserError, match="own.npz is of another network"):
        _heads.given(run_path(tmp_path / "own.npz"), model, lambda: Statistics)
