"""The probe: its heads against least squares and scikit-learn, its numbers against what it saved, its refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from diffrep_jax import data
from diffrep_jax.data.transforms import to_float
from diffrep_jax.errors import UserError
from diffrep_jax.readout.linear import Fit, fit
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _heads, base, probe
from tests.made_data import write_fashion
from tests.task_runs import run_task
from tests.tiny import tiny_config

RANDOM = np.random.default_rng(0)
CODES = RANDOM.normal(size=(300, 6)).astype(np.float32)


def test_regression_finds_the_least_squares_solution():
    targets = CODES @ RANDOM.normal(size=(6, 3)) + 0.5 + 0.1 * RANDOM.normal(size=(300, 3))
    heads = fit(CODES, jnp.asarray(targets), jax.random.key(0), Fit("mse", epochs=800, batch_size=300, lr=1e-2))
    design = np.concatenate([CODES, np.ones((300, 1))], axis=1)
    expected = np.linalg.lstsq(design, targets, rcond=None)[0]
    np.testing.assert_allclose(heads.kernel[-1], expected[:-1], atol=1e-3)
    np.testing.assert_allclose(heads.bias[-1], expected[-1], atol=1e-3)


def test_classification_finds_the_logistic_regression():
    labels = (CODES @ RANDOM.normal(size=(6, 2)) + RANDOM.normal(size=(300, 2)) > 0).astype(np.float32)
    heads = fit(CODES, jnp.asarray(labels), jax.random.key(0), Fit("bce", epochs=1500, batch_size=300, lr=1e-2))
    for i in range(2):
        model = LogisticRegression(C=np.inf, max_iter=1000).fit(CODES, labels[:, i])
        np.testing.assert_allclose(heads.kernel[-1][:, i], model.coef_[0], atol=2e-2)


def test_an_epoch_takes_every_example_once():
    """Adam's first step moves every weight by lr, against the gradient; a short last batch is a step of its own."""
    targets = jnp.asarray(CODES @ np.ones((6, 1), np.float32))

    def steps_of(batch_size):
        return fit(CODES, targets, jax.random.key(0), Fit("mse", epochs=2, batch_size=batch_size, lr=1e-4))

    whole = np.asarray(steps_of(300).kernel)
    np.testing.assert_allclose(np.abs(whole[1] - whole[0]), 1e-4, rtol=0.05)
    # Far from the optimum all steps go the same way: as many times lr as there are batches, 3 of 128 or less.
    parts = np.asarray(steps_of(128).kernel)
    np.testing.assert_allclose(np.abs(parts[1] - parts[0]), 3e-4, rtol=0.05)


def test_without_shuffling_the_first_example_comes_first_and_mirrored_codes_count_as_half():
    """One step up and a smaller one down, for any seed; and of codes that change sign nothing but a bias is learned."""
    codes, targets = jnp.asarray([[1.0], [-1.0]]), jnp.asarray([[3.0], [-3.0]])
    how = Fit("mse", epochs=1, batch_size=1, lr=0.1, shuffled=False)
    for seed in range(6):
        up, down = (
            fit(codes[jnp.asarray(order)], targets[jnp.asarray(order)], jax.random.key(seed), how)
            for order in ([0, 1], [1, 0])
        )
        assert up.bias[0, 0] > down.bias[0, 0] + 0.05
    how = Fit("mse", epochs=400, batch_size=2, lr=0.02)
    mirrored = fit(codes, targets, jax.random.key(0), how, -codes)
    plain = fit(codes, targets, jax.random.key(0), how)
    assert plain.kernel[-1, 0, 0] == pytest.approx(3, abs=0.05) and abs(mirrored.kernel[-100:].mean()) < 0.7


def run(model, out, **fields):
    return run_task("probe", model, out, **fields)[0]


def test_the_numbers_are_those_of_the_saved_heads(tiny_model, tmp_path):
    numbers = run(tiny_model, tmp_path, epochs=3, encode_batch_size=99)
    assert set(numbers) == {"classes_ap", "attributes_r", "attributes_mse"}
    report = json.loads((tmp_path / "probe" / "metrics.json").read_text())
    assert report["images"] == {"train": 1350, "validation": 150, "test": 297}
    assert json.loads((tmp_path / "probe" / "metrics_digits.json").read_text()) == report
    assert report["held_out"] == {"validation": 0.1}
    test = data.open_dataset("digits", split="test", image_size=8, channels=1, attributes=True)
    examples = [test[i] for i in range(len(test))]
    images = to_float(np.stack([example["image"] for example in examples]))
    # As the task batches them: codes that differ by rounding swap logits that are all but equal, 2e-4 of a precision.
    codes = np.concatenate([tiny_model.encode(images[first : first + 99]) for first in range(0, len(images), 99)])
    for part in ("classes", "attributes"):
        head = _heads.read(tmp_path / "probe" / f"{part}_digits.npz")
        outputs = codes @ head.kernel + head.bias
        assert head.dataset == "digits" and head.trained_by == "probe"
        assert head.kind == {"classes": "bce", "attributes": "mse"}[part]
        np.testing.assert_allclose(head.fingerprint, tiny_model.fingerprint(), rtol=1e-4, atol=1e-5)
        for i, name in enumerate(head.names):
            if part == "classes":
                expected = average_precision_score([example["label"] == i for example in examples], outputs[:, i])
                value = report["classes"]["each"]["ap"][name]
            else:
                expected = pearsonr(outputs[:, i], [example["attributes"][i] for example in examples])[0]
                value = report["attributes"]["each"]["r"][name]
            np.testing.assert_allclose(value, expected, atol=1e-4)
    np.testing.assert_allclose(numbers["classes_ap"], np.mean(list(report["classes"]["each"]["ap"].values())))
    assert report["official_images"] == {"train": 1500, "mirrored": True}


def test_official_numbers_are_those_of_raw_targets_all_images_and_no_shuffling(tiny_model, tmp_path, monkeypatch):
    taught = []

    def spy(codes, targets, key, how, flipped=None):
        taught.append((np.asarray(codes), np.asarray(targets), how, flipped))
        return fit(codes, targets, key, how, flipped)

    monkeypatch.setattr(probe, "fit", spy)
    run(tiny_model, tmp_path, epochs=2, encode_batch_size=99)
    report = json.loads((tmp_path / "probe" / "metrics.json").read_text())
    (_, _, ours, _), (codes, targets, theirs, flipped) = taught[2:]
    train = data.open_dataset("digits", split="train", image_size=8, channels=1, attributes=True)
    np.testing.assert_array_equal(targets, [train[i]["attributes"] for i in range(len(train))])
    assert len(codes) == 1500 and flipped.shape == codes.shape and (flipped != codes).any()
    assert (ours.shuffled, theirs.shuffled, theirs.batch_size, theirs.kind) == (True, False, 64, "mse")
    assert set(report["attributes"]["official"]) == {"mean", "epoch"}


def test_mirrored_images_are_encoded_where_training_mirrors(tiny_model, tmp_path, monkeypatch):
    config = tiny_config()
    task = base.build("probe", config.tasks.probe.to_dict() | {"num_images": 6, "encode_batch_size": 4}, {})
    train = data.open_dataset("digits", split="train", image_size=8, channels=1)
    mirrored = np.stack([train[i]["image"][:, ::-1] for i in range(6)])
    ours = task._mirrored(tiny_model, train, Run.at(tmp_path, config))
    np.testing.assert_allclose(ours, tiny_model.encode(to_float(mirrored)), atol=1e-5)
    with config.unlocked():
        config.data.flip = False
    assert task._mirrored(tiny_model, train, Run.at(tmp_path, config)) is None


def test_more_images_than_there_are_is_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match="9999 images were asked for: split 'train' of 'digits' has 1500"):
        run(tiny_model, tmp_path, num_images=9999)


def test_a_data_set_without_labels_is_refused(tiny_model, tmp_path, monkeypatch):
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / f"{i}.png")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    with pytest.raises(UserError, match="'folder' has no labels to probe for"):
        run(tiny_model, tmp_path / "out", dataset="folder")


def test_where_there_is_one_split_a_fifth_is_held_out(tiny_model, tmp_path, monkeypatch):
    """As published, CelebA-HQ has but one; the heads that were saved were not taught what they are judged on."""
    names = [f"a{i}" for i in range(40)]
    rows = [f"{i}.png {' '.join('1' if (i + k) % 2 else '-1' for k in range(40))}" for i in range(30)]
    for i in range(30):
        Image.new("L", (8, 8), 8 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(["30", " ".join(names), *rows]) + "\n")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    taught = []
    monkeypatch.setattr(probe, "fit", lambda codes, *a, **k: taught.append(np.asarray(codes)) or fit(codes, *a, **k))
    run(tiny_model, tmp_path / "out", dataset="celebahq", epochs=2)
    report = json.loads((tmp_path / "out" / "probe" / "metrics.json").read_text())
    assert report["images"] == {"train": 21, "test": 6, "validation": 3}
    assert report["held_out"] == {"test": 0.2, "validation": 0.1}
    whole = data.open_dataset("celebahq", split="test", image_size=8, channels=1, data_dir=tmp_path)
    codes = tiny_model.encode(to_float(np.stack([whole[i]["image"] for i in range(30)])))
    apart = np.abs(codes[:, None] - taught[0][None]).max(-1).min(1)
    assert (apart < 1e-5).sum() == 21


def test_a_published_test_split_in_a_file_of_its_own_is_what_heads_are_judged_on(tiny_model, tmp_path, monkeypatch):
    """The entries of both splits count from 0, and are other images."""
    write_fashion(tmp_path / "idx", train=60, test=20)
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "idx"))
    run(tiny_model, tmp_path / "out", dataset="fashion", epochs=1)
    report = json.loads((tmp_path / "out" / "probe" / "metrics.json").read_text())
    assert report["images"] == {"train": 54, "validation": 6, "test": 20}
    assert report["held_out"] == {"validation": 0.1}


def test_measures_are_a_part_of_their_own_where_other_columns_say_what_images_have(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    rows = ["file,size,bright,year"]
    for i in range(40):
        Image.new("L", (8, 8), 6 * i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i / 2},{int(i > 15)},{1900 + i % 3}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    numbers = run(tiny_model, tmp_path / "out", dataset="folder", epochs=1)
    assert numbers.keys() == {"attributes_ap", "measures_r", "measures_mse"}
    heads = {
        part: _heads.read(tmp_path / "out" / "probe" / f"{part}_folder.npz") for part in ("attributes", "measures")
    }
    assert (heads["attributes"].kind, heads["attributes"].names) == ("bce", ("bright",))
    assert (heads["measures"].kind, heads["measures"].names) == ("mse", ("size", "year"))
    report = json.loads((tmp_path / "out" / "probe" / "metrics.json").read_text())
    assert report["measures"]["each"]["r"].keys() == {"size", "year"} and report["attributes"]["each"].keys() == {"ap"}


def test_an_unknown_data_set_is_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match="'digit' .*tasks.probe.dataset|Did you mean 'digits'"):
        run(tiny_model, tmp_path, dataset="digit")


def test_an_attribute_that_no_test_image_has_is_left_out_of_the_mean():
    targets = np.array([[0, 1], [0, 0], [0, 1]], np.float32)
    values = probe._judge("bce", RANDOM.normal(size=(3, 2)), targets)["ap"]
    assert np.isnan(values[0]) and np.isfinite(values[1])
