"""probe and manipulate on small labelled folders: what images cannot tell is null, in silence."""

import json

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.inference.heads import read
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base, probe
from tests.task_runs import kept, run_task
from tests.tiny import tiny_config

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def labelled(folder, monkeypatch, count, heading, row):
    """`count` images and a labels.csv with such rows; the tenth, the twentieth ... are for the test."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    rows = [f"{i}.png,{row(i)}" for i in range(count)]
    for i in range(count):
        Image.fromarray(noise.integers(0, 255, (8, 8), np.uint8)).save(folder / f"{i}.png")
    (folder / "labels.csv").write_text("\n".join([f"file,{heading}", *rows]), encoding="utf-8")
    monkeypatch.setenv("DIFFREP_DATA", str(folder))


def run(task, model, out, **settings):
    """(The numbers returned, metrics.json.)"""
    defaults = {"dataset": "folder", "epochs": 2}
    if task == "manipulate":
        defaults |= {"attribute": "0", "num_images": 2, "scales": (0.3,)}
    numbers, folder = run_task(task, model, out, **defaults | settings)
    return numbers, json.loads((folder / "metrics.json").read_text())


def unlabelled_test(i):
    return f"{int(i % 2 and (i + 1) % 10 != 0)},{i}.5,{'ab'[(i + 1) % 10 == 0 or i < 4]}"


def test_what_the_test_images_cannot_tell_is_null_and_counted_out(tiny_model, tmp_path, monkeypatch, caplog):
    """Three test images lack the attribute and are all of one class; the measure is known."""
    labelled(tmp_path / "data", monkeypatch, 30, "hat,age,class", unlabelled_test)
    caplog.set_level("INFO")
    numbers, report = run("probe", tiny_model, tmp_path)
    assert np.isnan(numbers["attributes_ap"]) and numbers["classes_ap"] == 1 and np.isfinite(numbers["measures_r"])
    assert report["attributes_ap"] is None and report["attributes"]["official"]["mean"] == {"ap": None}
    assert report["classes"]["each"]["ap"] == {"a": None, "b": 1}
    assert "attributes: ap nan over 0 of 1" in caplog.text and "classes: ap 1.0000 over 1 of 2" in caplog.text
    for attribute, ap in (("hat", None), ("hat,b", 1), ("hat,a", None)):
        numbers, report = run("manipulate", tiny_model, tmp_path, attribute=attribute)
        assert report["ap"] == ap and (np.isnan(numbers["ap"]) if ap is None else numbers["ap"] == ap)


def test_of_a_single_test_image_there_is_no_r_and_the_last_epoch_is_taken(tiny_model, tmp_path, monkeypatch, caplog):
    labelled(tmp_path / "data", monkeypatch, 6, "age", lambda i: f"{i}.5")
    caplog.set_level("INFO")
    numbers, report = run("probe", tiny_model, tmp_path, epochs=3)
    assert "attributes: r nan over 0, mse" in caplog.text and "over 1 of 1, head of epoch 3 of 3" in caplog.text
    assert np.isnan(numbers["attributes_r"]) and np.isfinite(numbers["attributes_mse"])
    assert report["attributes"]["epoch"] == report["attributes"]["official"]["epoch"] == 3
    assert run("manipulate", tiny_model, tmp_path)[1]["r"] is None


def test_too_few_images_to_learn_from_are_refused_before_any_is_encoded(tiny_model, tmp_path, monkeypatch):
    labelled(tmp_path / "data", monkeypatch, 2, "hat", lambda i: i)
    message = "1 training images of 'folder' and holds validation images out of them: .* Give it 2 or more"
    with pytest.raises(UserError, match=message):
        run("probe", tiny_model, kept(tmp_path / "run"))
    task = base.build("probe", tiny_config().tasks.probe.to_dict() | {"dataset": "folder"}, {})
    with pytest.raises(UserError, match=message):
        task.check(tiny_model, Run.at(tmp_path, tiny_config()))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json"]


def test_a_probe_that_is_refused_half_way_leaves_the_heads_of_the_one_before(tiny_model, tmp_path, monkeypatch):
    labelled(tmp_path / "data", monkeypatch, 20, "hat,age", lambda i: f"{i % 2},{i}.5")
    run("probe", tiny_model, tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "probe").iterdir()}
    plain = probe.fit

    def no_measures(codes, targets, key, how, *others):
        heads = plain(codes, targets, key, how, *others)
        return heads._replace(kernel=heads.kernel * np.nan) if how.kind == "mse" else heads

    monkeypatch.setattr(probe, "fit", no_measures)
    with pytest.raises(UserError, match="not finite"):
        run("probe", tiny_model, tmp_path, epochs=1)
    assert {path: path.read_bytes() for path in (tmp_path / "probe").iterdir()} == files and len(files) == 4


def test_a_probe_leaves_no_heads_of_labels_that_are_gone(tiny_model, tmp_path, monkeypatch):
    names = lambda: {path.name for path in (tmp_path / "probe").glob("*.npz")}  # noqa: E731
    labelled(tmp_path / "data", monkeypatch, 20, "hat,age", lambda i: f"{i % 2},{i}.5")
    run("probe", tiny_model, tmp_path)
    (tmp_path / "probe" / "measures_digits.npz").write_bytes(b"of another data set")
    assert names() == {"attributes_folder.npz", "measures_folder.npz", "measures_digits.npz"}
    labelled(tmp_path / "data", monkeypatch, 20, "hat", lambda i: f"{i % 2}")
    run("probe", tiny_model, tmp_path)
    assert names() == {"attributes_folder.npz", "measures_digits.npz"}


def test_a_class_with_an_attributes_name_has_a_number_and_a_name_of_its_own(tiny_model, tmp_path, monkeypatch, caplog):
    """All test images are of the class `cat`, none has what the column `cat` says."""
    labelled(
        tmp_path / "data", monkeypatch, 40, "class,cat", lambda i: f"{'cat' if i % 4 else 'dog'},{int(i % 4 == 0)}"
    )
    expected = {"0": ("cat", None), "cat": ("cat", None), "1": ("cat (class)", 1), "cat (class)": ("cat (class)", 1)}
    for trained_by in ("manipulate", "probe"):
        for attribute, (name, ap) in expected.items():
            _, report = run("manipulate", tiny_model, tmp_path, attribute=attribute)
            assert (report["attribute"], report["ap"], report["head"]) == (name, ap, trained_by)
        run("probe", tiny_model, tmp_path)
    assert "not used" not in caplog.text
    _, report = run("manipulate", tiny_model, tmp_path, attribute="0,-1")
    assert (report["attribute"], report["dimensions"]) == ("cat, -cat (class)", 8)


@pytest.mark.parametrize(("heading", "row"), [("hat", "1,0"), ("age", "7.3,0"), ("class", "only,other")])
def test_what_is_the_same_for_all_images_has_no_direction(heading, row, tiny_model, tmp_path, monkeypatch):
    """Known before anything is encoded; one test image of another kind changes nothing."""
    labelled(tmp_path / "data", monkeypatch, 10, heading, lambda i: row.split(",")[i == 9])
    message = f"'{'only' if heading == 'class' else heading}' is the same for all 9 training images of 'folder'"
    with pytest.raises(UserError, match=message):
        run("manipulate", tiny_model, kept(tmp_path / "run"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.json"]


def test_a_measure_is_learned_alike_in_any_unit_and_reported_in_its_own(tiny_model, tmp_path, monkeypatch):
    """Seconds since 1970, and numbers whose square float32 does not hold: numbers of a * i + b are those of i."""
    found = {}
    for name, (a, b) in {"plain": (1, 0), "seconds": (512, 1.7e9 // 128 * 128), "huge": (2.0**120, 0)}.items():
        labelled(tmp_path / "data" / name, monkeypatch, 40, "m", lambda i, a=a, b=b: a * (i + 3) + b)
        _, report = run("manipulate", tiny_model, tmp_path / name, attribute="m", lr=1e-2)
        found[name] = report["r"], (report["mean_logit"]["0.3"] - b) / a
        numbers, _ = run("probe", tiny_model, tmp_path / name, lr=1e-2)
        found[name] += numbers["attributes_r"], numbers["attributes_mse"] / a**2
    np.testing.assert_allclose(found["seconds"], found["plain"], rtol=1e-4)
    np.testing.assert_allclose(found["huge"], found["plain"], rtol=1e-4)
    assert found["plain"][1] == pytest.approx(22, abs=10)  # of 3 to 42


def test_a_constant_is_what_the_probe_says_and_no_way_to_go(tiny_model, tmp_path, monkeypatch, caplog):
    """Of three images the probe learns from one; manipulate learns from two, and not from what says nothing."""
    labelled(tmp_path / "data", monkeypatch, 3, "m", lambda i: f"{7 + i}.3")
    run("probe", tiny_model, tmp_path)
    head = read(tmp_path / "probe" / "attributes_folder.npz")
    assert (
        not head.kernel.any()
        and head.bias[0] == np.float32(head.bias[0])
        and round(float(head.bias[0]), 1) in (7.3, 8.3)
    )
    assert not head.direction(True).any() and not head.to_boundary(np.ones((2, 8)), False).any()
    _, report = run("manipulate", tiny_model, tmp_path)
    assert report["head"] == "manipulate" and "has learned from a constant: not used" in caplog.text


def test_the_best_epoch_is_among_those_that_can_be_judged():
    judged = [{"r": np.array(values), "mse": np.ones(2)} for values in ([np.nan, 0.2], [np.nan] * 2, [0.1, 0.5])]
    assert [probe._best(judged), probe._best(judged[:2]), probe._best(judged[1:2] * 3)] == [2, 0, 2]
