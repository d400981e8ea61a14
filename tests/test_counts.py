"""Evaluate's rows at numbers of evaluations: how many they make, what is measured once, what is refused, the curves."""

import dataclasses
import json
from collections import Counter

import jax
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.inference import compiled
from diffrep_jax.report.recipes import in_words
from diffrep_jax.samplers import Sampling
from diffrep_jax.tasks import _reconstructions
from diffrep_jax.tasks.evaluate import Evaluate
from tests import made_run
from tests.gaussian_data import PROCESSES
from tests.report_parts import blocks, report_of
from tests.task_runs import run_task

EULER = {"sampler": "euler"}
RECIPES = (EULER, {}, EULER | {"churn_step_ratio": 0.33})  # the tiny run's own sampler is Heun's
COUNTS = (1, 2, 5)
MADE = [("euler", 1), ("euler", 2), ("euler", 5), ("heun", 1), ("heun", 5), ("euler", 2), ("euler", 4)]


def evaluate(model, out, **settings):
    settings = {"num_images": 4, "without": ("lpips", "fid")} | settings
    numbers, folder = run_task("evaluate", model, out, **settings)
    return numbers, json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def measured(monkeypatch):
    """[the rows of each measurement]; the third one of those in `dies` is interrupted."""
    plain, calls = _reconstructions.measure, []

    def measure(model, batches, size, rows, *rest):
        if len(calls) == measure.dies_at:
            raise KeyboardInterrupt
        calls.append(rows)
        return plain(model, batches, size, rows, *rest)

    measure.dies_at = None
    monkeypatch.setattr(_reconstructions, "measure", measure)
    return measure, calls


@pytest.mark.parametrize("grid", ["karras", "uniform_lambda"])
@pytest.mark.parametrize("changes", [*RECIPES, {"order": 3}, {"start": "noise"}, {"eta": 1.0}])
def test_as_many_steps_as_make_no_more(changes, grid):
    process = PROCESSES["vp"]
    how = Sampling(grid=grid, **changes)
    for count in (1, 2, 3, 8, 20):
        within = how.within(count, process)
        if within is None:
            assert dataclasses.replace(how, steps=1).nfe(process) > count
        else:
            more = dataclasses.replace(within, steps=within.steps + 1)
            assert within.nfe(process) <= count < more.nfe(process)
            assert dataclasses.replace(within, steps=how.steps) == how


def test_a_row_with_a_stochastic_code_is_counted_and_described_by_the_ode():
    """Without one the same recipes make an evaluation more, and two a step."""
    rows = ({"eta": 1.0, "start": "noise"}, {"sampler": "euler", "churn_step_ratio": 0.33})
    usual, process = Sampling(grid="karras"), PROCESSES["vp"]
    plain = Evaluate(rows=rows, counts=(6,)).recipes(usual, process)
    assert [(row.how.steps, row.how.nfe(process)) for row in plain] == [(5, 6), (3, 6)]
    coded = Evaluate(rows=rows, counts=(6,), invert_steps=4).recipes(usual, process)
    assert [row.how for row in coded] == [Sampling(steps=6), Sampling("euler", steps=6)]
    described = [row.described() for row in coded]
    assert all((line["eta"], line["churn_step_ratio"], line["invert_steps"]) == (0, 0, 4) for line in described)


def test_each_recipe_is_measured_at_each_number(tiny_model, tmp_path):
    numbers, report = evaluate(tiny_model, tmp_path, rows=RECIPES, counts=COUNTS)
    rows = report["rows"]
    assert [(row["sampler"], row["evaluations"]) for row in rows] == MADE
    assert numbers["mse"] == rows[0]["mse"]
    _, plain = evaluate(tiny_model, tmp_path / "plain", rows=(EULER | {"steps": 5}, {"steps": 3}))
    for row, other in zip((rows[2], rows[4]), plain["rows"], strict=True):
        assert row | {"seconds": 0} == other | {"seconds": 0}


def test_the_number_of_steps_compiles_nothing(tiny_model, tmp_path):
    evaluate(tiny_model, tmp_path, rows=(EULER,), counts=(2,))
    programs = compiled.decode._cache_size()
    evaluate(tiny_model, tmp_path, rows=(EULER,), counts=(3, 5, 128))
    assert compiled.decode._cache_size() == programs


def test_what_was_interrupted_goes_on_and_nothing_is_measured_twice(tiny_model, tmp_path, measured):
    measure, calls = measured
    measure.dies_at = 2
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_model, tmp_path, rows=RECIPES, counts=COUNTS)
    first = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())["rows"]
    assert len(first) == 2
    measure.dies_at = None
    _, report = evaluate(tiny_model, tmp_path, rows=RECIPES, counts=COUNTS)
    assert [(row["sampler"], row["evaluations"]) for row in report["rows"]] == MADE and len(calls) == len(MADE)
    assert report["rows"][:2] == first
    _, again = evaluate(tiny_model, tmp_path, rows=RECIPES[::-1], counts=COUNTS)
    assert len(calls) == len(MADE)
    assert [row["evaluations"] for row in again["rows"]] == [2, 4, 1, 5, 1, 2, 5]
    _, more = evaluate(tiny_model, tmp_path, rows=(EULER,), counts=(3,), num_images=2)
    assert len(calls) == len(MADE) + 1 and [row["images"] for row in more["rows"]] == [2] + [4] * len(MADE)


def test_rows_of_other_weights_go(tiny_model, tmp_path, measured):
    evaluate(tiny_model, tmp_path, rows=(EULER,), counts=COUNTS)
    other = dataclasses.replace(tiny_model, variables=jax.tree.map(lambda x: x * 1.01, tiny_model.variables))
    _, report = evaluate(other, tmp_path, rows=(EULER,), counts=(2,))
    assert [row["evaluations"] for row in report["rows"]] == [2] and len(measured[1]) == 4


def test_rows_without_counts_stay_next_to_those_with(tiny_model, tmp_path):
    evaluate(tiny_model, tmp_path, rows=(EULER,), counts=COUNTS)
    numbers, report = evaluate(tiny_model, tmp_path)
    assert [(row["sampler"], row["evaluations"]) for row in report["rows"]] == [("heun", 3), *MADE[:3]]
    assert numbers["mse"] == report["rows"][0]["mse"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"counts": (0,)}, "tasks.evaluate.counts.* 0"),
        ({"counts": (-3,)}, "tasks.evaluate.counts.* -3"),
        ({"counts": ("ten",)}, "tasks.evaluate.counts.* 'ten'"),
        ({"counts": (2.5,)}, "tasks.evaluate.counts.* 2.5"),
        ({"counts": (3,), "rows": (5,)}, "row 5 of tasks.evaluate.rows has steps of its own"),
        ({"counts": (3,), "rows": ({"steps": 5},)}, "has steps of its own: leave them out, or tasks.evaluate.counts"),
        ({"counts": (1,), "rows": ({"churn_step_ratio": 0.3} | EULER,)}, "counts 1: .*euler .*makes 2 .*ask for more"),
        ({"counts": (3,), "rows": ({"sampler": "exponential", "grid": "ddim_range"},)}, "ddim_range.*grid=karras"),
        ({"counts": (3,), "reconstructions": "made"}, "counts is of no use to images in files"),
        ({"counts": (3,), "rows": (EULER | {"eta": 1.0},)}, "eta 1.0 is of no use to sampler euler"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(settings, message, tiny_model, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        evaluate(tiny_model, tmp_path, disentanglement_images=20, **settings)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_read_is_refused(tiny_model, tmp_path):
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "metrics.json").write_text('{"rows": [')
    with pytest.raises(UserError, match="metrics.json cannot be read .*delete it"):
        evaluate(tiny_model, tmp_path, counts=(1,))


# --- the report


def test_curves_have_the_points_of_the_rows(tiny_model, tmp_path):
    run = made_run.digits_run(tmp_path)
    recipes = (*RECIPES, {"sampler": "exponential", "order": 2}, {"sampler": "exponential", "start": "noise"})
    _, report = evaluate(tiny_model, run, rows=recipes, counts=(3, 5, 2))
    charts = {block["caption"]: block for block in blocks(report_of(run), "chart")}
    names = ["Euler", "Heun", "Euler, churn 0.33", "exponential, order 2", "exponential, order 1, start with noise"]
    for measure in ("mse", "psnr", "ssim"):
        chart = charts[measure]
        assert list(chart["lines"]) == names and chart["log_x"]
        points = [tuple(point) for line in chart["lines"].values() for point in line]
        assert Counter(points) == Counter((row["evaluations"], row[measure]) for row in report["rows"])
        assert all(line == sorted(line) for line in chart["lines"].values())


def test_a_recipe_is_named_by_what_differs():
    one = dataclasses.asdict(Sampling("exponential", "karras", eta=1.0)) | {"dataset": "digits"}
    other = one | {"grid": "uniform_lambda", "eta": 0.0, "order": 2, "corrector": True, "clock": "log_rho"}
    assert in_words(one, [one]) == "exponential, order 1"
    assert in_words(one, [one, other]) == "exponential, order 1, clock lambda, eta 1, on karras"
    assert in_words(other, [one, other]) == "exponential, order 2, corrector, clock log_rho, on uniform_lambda"
    assert in_words({"sampler": "leapfrog"}, [one]) == "leapfrog"
