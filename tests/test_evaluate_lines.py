"""Lines that `evaluate` keeps of an earlier call: only of the very same images, weights and settings."""

import dataclasses
import json
import os

import numpy as np
import pytest
from PIL import Image

from diffrep_jax import data
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.runs import weights
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _disentangle, base
from diffrep_jax.tasks.evaluate import Evaluate
from tests.task_runs import run_task
from tests.tiny import tiny_config

NETWORKS = ("lpips", "fid")


def lines(model, out, **settings):
    """The rows of its metrics.json."""
    _, folder = run_task("evaluate", model, out, without=NETWORKS, **settings)
    return json.loads((folder / "metrics.json").read_text())["rows"]


def test_a_line_of_other_images_is_measured_again(tiny_model, tmp_path, monkeypatch):
    """The folder's pictures were replaced by others of the same names."""

    def measured(seed, out, **settings):
        for i, image in enumerate(np.random.default_rng(seed).integers(0, 256, (4, 8, 8), np.uint8)):
            Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
            os.utime(tmp_path / "pictures" / f"{i}.png", (seed, seed))
        return lines(tiny_model, tmp_path / out, dataset="folder", num_images=-1, **settings)

    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "pictures"))
    (first,) = measured(0, "run", counts=(3,))
    assert measured(0, "run", counts=(3,)) == [first]  # of the first call, its time too
    second = measured(1, "run", counts=(3,))
    (expected,) = measured(1, "alone", counts=(3,))
    assert [line["mse"] for line in second] == [expected["mse"]] != [first["mse"]]


def test_a_line_of_another_dtype_is_measured_again(tiny_model, tmp_path):
    """The settings of the method count, the weights are the same."""
    (first,) = lines(tiny_model, tmp_path, counts=(3,))
    config = tiny_config()
    with config.unlocked():
        config.method.dtype = "bfloat16"
        config.tasks.evaluate.update(counts=(3,), without=NETWORKS, batch_size=4)
    model = dataclasses.replace(tiny_model, method=build(config.method))
    base.build("evaluate", config.tasks.evaluate, {}).run(model, Run.at(tmp_path, config))
    (line,) = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["rows"]
    assert line["mse"] != first["mse"]


@pytest.fixture
def one_bad(tmp_path, monkeypatch):
    """Six pictures, of which the third is none."""
    (tmp_path / "pictures").mkdir()
    for i in range(6):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "pictures" / "2.png").write_bytes(b"no picture")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "pictures"))


def lines_of_some(model, out, max_bad_fraction=0.5, **settings):
    """As `lines`, where so many may be unreadable."""
    config = tiny_config()
    asked = {"dataset": "folder", "split": "all", "num_images": 5, "without": NETWORKS, "batch_size": 4}
    with config.unlocked():
        config.data.max_bad_fraction = max_bad_fraction
        config.tasks.evaluate.update(asked | settings)
    base.build("evaluate", config.tasks.evaluate, {}).run(model, Run.at(out, config))
    return json.loads((out / "evaluate" / "metrics.json").read_text())["rows"]


def test_a_line_says_how_many_images_could_be_read(tiny_model, tmp_path, one_bad):
    """With counts as without."""
    (plain,) = lines_of_some(tiny_model, tmp_path / "plain", counts=())
    (at_counts,) = lines_of_some(tiny_model, tmp_path / "counted", counts=(3,))
    assert plain["images"] == at_counts["images"] == 4 and plain["unreadable"] == at_counts["unreadable"] == 1
    assert plain["mse"] == at_counts["mse"]


def test_a_line_with_an_unreadable_image_is_kept_as_long_as_so_many_may_be(tiny_model, tmp_path, one_bad):
    first = lines_of_some(tiny_model, tmp_path, counts=(3,))
    assert lines_of_some(tiny_model, tmp_path, counts=(3,)) == first  # of the first call, its time too
    four, five = lines_of_some(tiny_model, tmp_path, counts=(3,), num_images=4)
    assert (four["images"], five) == (3, first[0])  # four of which one is bad are not five of which one is
    with pytest.raises(UserError, match="1 bad of 6 entries, more than data.max_bad_fraction=0.1"):
        lines_of_some(tiny_model, tmp_path, 0.1, counts=(3,))
    assert lines_of_some(tiny_model, tmp_path, counts=(3,)) == [five, four]


def test_a_line_of_images_that_come_back_exactly_is_kept(tiny_model, tmp_path, monkeypatch):
    """Their PSNR is infinite, which JSON has not."""
    test = data.open_dataset("digits", split="test", image_size=8, channels=1)

    def decode(model, encoded, how, numbers):
        return np.stack([test[numbers + i]["image"] for i in range(len(encoded))]) / np.float32(127.5) - 1

    calls = []
    monkeypatch.setattr(type(tiny_model), "decode", counted(decode, calls))
    (first,) = lines(tiny_model, tmp_path, counts=(3,))
    assert first["mse"] == 0 and first["psnr"] is None and first["not_finite"] == ["psnr"]
    calls.clear()
    assert lines(tiny_model, tmp_path, counts=(3,)) == [first] and calls == []


def test_lines_that_another_process_writes_meanwhile_stay_and_are_not_measured_again(tiny_model, tmp_path, monkeypatch):
    """Two calls by different counts at once, of which the second one ends while the first is at its first line."""
    plain, inside = Evaluate._decoded, []

    def decoded(self, *arguments):
        made = plain(self, *arguments)
        if not inside:
            inside.append(True)
            inside.extend(lines(tiny_model, tmp_path, counts=(3, 5)))
        return made

    monkeypatch.setattr(Evaluate, "_decoded", decoded)
    at = {line["evaluations"]: line for line in lines(tiny_model, tmp_path, counts=(1, 3))}
    assert sorted(at) == [1, 3, 5] and [at[3], at[5]] == inside[1:]


def test_lines_are_kept_while_codes_are_measured(tiny_model, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_disentangle, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        lines(tiny_model, tmp_path, disentanglement_images=20)
    (line,) = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["rows"]
    assert line["mse"] > 0


def test_numbers_of_codes_stay_as_long_as_images_and_method_do(tiny_model, tmp_path):
    def codes(model, config, **settings):
        with config.unlocked():
            config.tasks.evaluate.update({"num_images": 1, "without": NETWORKS, "batch_size": 4} | settings)
        base.build("evaluate", config.tasks.evaluate, {}).run(model, Run.at(tmp_path, config))
        return json.loads((tmp_path / "evaluate" / "metrics.json").read_text()).get("disentanglement")

    measured = codes(tiny_model, tiny_config(), disentanglement_images=20)
    assert (measured["dataset"], measured["split"], measured["images"]) == ("digits", "train", 20)
    assert codes(tiny_model, tiny_config()) == measured
    other = tiny_config()
    with other.unlocked():
        other.method.dtype = "bfloat16"
    assert codes(tiny_model, other) is None


def test_numbers_of_codes_stay_where_their_images_are_not_at_hand(tiny_model, tmp_path, monkeypatch):
    """What is asked for is measured and written; other images of the same kind of data set have no such split."""
    for name, count in (("many", 10), ("one", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("L", (8, 8), 20 * i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "many" / "labels.csv").write_text("\n".join(["file,size", *(f"{i}.png,{i}" for i in range(10))]))
    settings = {"dataset": "folder", "num_images": 1, "split": "all"}
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "many"))
    lines(tiny_model, tmp_path, disentanglement_images=-1, **settings)
    measured = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["disentanglement"]
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path / "one"))
    (line,) = lines(tiny_model, tmp_path, **settings)
    report = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert line["images"] == 1 and report["disentanglement"] == measured


def test_a_preview_that_is_given_up_half_way_leaves_no_file_that_says_it_is_made(tiny_model, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(_disentangle, "measure", stop)
    config = tiny_config()
    with config.unlocked():
        config.tasks.evaluate.update(counts=(1,), without=NETWORKS, batch_size=4, disentanglement_images=5)
    with pytest.raises(KeyboardInterrupt):
        base.build("evaluate", config.tasks.evaluate, {}).run(tiny_model, Run.at(tmp_path, config).preview(4))
    assert not list(tmp_path.rglob("metrics.json"))


def test_a_preview_asks_for_nothing_that_one_host_has_not(tiny_model, tmp_path, monkeypatch):
    """Neither for the weights as a whole, which may lie on several, nor for a file of an earlier start."""
    monkeypatch.setattr(weights, "digest", lambda variables: pytest.fail("the weights were read"))
    config = tiny_config()
    with config.unlocked():
        config.tasks.evaluate.update(counts=(1,), without=NETWORKS, batch_size=4)
    preview = Run.at(tmp_path, config).preview(4)
    task, decoded = base.build("evaluate", config.tasks.evaluate, {}), []
    monkeypatch.setattr(type(tiny_model), "decode", counted(type(tiny_model).decode, decoded))
    for _ in range(2):
        task.run(tiny_model, preview)
    assert len(decoded) == 2 * 3  # batches of 4 of 10 images, each time


def counted(function, calls):
    def wrapper(*args, **kwargs):
        calls.append(function)
        return function(*args, **kwargs)

    return wrapper
