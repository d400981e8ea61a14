"""The report: what it says of a run that has everything, little or nothing; its command and its hook."""

import json
import os
import re
import types

import numpy as np
import pytest

from diffrep_jax.report import charts, run_sections, task_sections, values
from diffrep_jax.report.collect import collect
from diffrep_jax.report.html import page
from diffrep_jax.report.markdown import markdown
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from launch import hooks, main
from tests import made_run
from tests.report_parts import TASKS, blocks, report_of
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def ffhq(tmp_path_factory):
    return made_run.ffhq_run(tmp_path_factory.mktemp("runs") / "ffhq")


# --- what there is and what there is not


def test_an_empty_run_names_the_command_of_each_section(tmp_path):
    run = made_run.digits_run(tmp_path / "my run")
    commands = [block["command"] for block in blocks(report_of(run), "missing")]
    assert {command.rpartition("--task=")[2] for command in commands} == set(TASKS) - {"report"}
    assert all(command.startswith(f"python launch/main.py '--workdir={run}'") for command in commands)
    assert blocks(report_of(run, tasks=()), "missing")[0]["command"].endswith(
        "--task=probe"
    )  # what this version lacks is not asked


def test_numbers_from_before_the_newest_checkpoint_are_marked(tmp_path):
    run = made_run.celeba_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    assert collect(run).earlier == frozenset()
    now = (run / "probe" / "metrics.json").stat().st_mtime
    (run / "checkpoints" / "2000").mkdir()
    os.utime(run / "checkpoints" / "2000", (now + 100, now + 100))
    os.utime(run / "reconstruct" / "metrics.json", (now + 200, now + 200))
    assert collect(run).earlier == {"probe", "probe/lfw"}
    warnings = [block for block in blocks(report_of(run), "missing") if "before the newest checkpoint" in block["text"]]
    assert [block["command"].rpartition(" ")[2] for block in warnings] == ["--config.tasks.probe.dataset=lfw"]


def test_every_measure_of_evaluate_is_drawn(ffhq):
    drawn = {block["caption"]: block["lines"] for block in blocks(report_of(ffhq), "chart")}
    assert {"mse", "psnr", "ssim", "lpips"} <= drawn.keys() and "fid" not in drawn
    assert drawn["mse"].keys() == {"Euler", "Heun", "exponential, inverted 100"}
    assert drawn["mse"]["Heun"][0] == [19, made_run.evaluation()["rows"][4]["mse"]]
    assert any("fid: not measured. No weights" in block["text"] for block in blocks(report_of(ffhq), "text"))


def test_long_curves_are_thinned_to_means():
    line = [[float(i), float(i % 2)] for i in range(10_000)]
    thin = run_sections.thinned(line)
    assert len(thin) == run_sections.POINTS
    assert np.mean([x for x, _ in thin]) == pytest.approx(4999.5, rel=1e-3)
    assert max(abs(y - 0.5) for _, y in thin) < 0.02
    assert run_sections.thinned(line[:7]) == line[:7]


def test_charts_put_points_where_their_values_are():
    """The ends of a line lie at the ends of the axes; ten times as much is half of the way to a hundred times."""
    chart = {
        "caption": "c",
        "x": "x",
        "log_x": True,
        "log_y": False,
        "dots": True,
        "lines": {"a": [[1, 5], [10, 6], [100, 9]]},
    }
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', charts.line_chart(chart))
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in circles]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.25, abs=0.01)
    assert 0 < x0 < x2 < charts.WIDTH and 0 < y2 < y0 < charts.HEIGHT
    flat = chart | {"lines": {"a": [[3, 0]]}, "log_x": True}
    assert "nan" not in charts.line_chart(flat)


def test_what_is_far_worse_lies_on_the_edge():
    rows = [
        {"sampler": "euler", "evaluations": n, "mse": mse, "psnr": 20.0} for n, mse in ((1, 9.0), (2, 0.05), (3, 0.01))
    ]
    chart, psnr = (block for block in task_sections._quality({"rows": rows}) if block["kind"] == "chart")
    assert chart["lines"] == {"Euler": [[1, 9.0], [2, 0.05], [3, 0.01]]} and chart["within"] == [0.01, 0.1]
    assert psnr["within"] is None
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', charts.line_chart(chart))]
    assert heights[0] == charts.TOP and heights[2] == charts.HEIGHT - charts.BOTTOM
    assert (heights[2] - heights[1]) / (heights[2] - heights[0]) == pytest.approx(np.log10(5), abs=0.01)


def test_a_log_axis_is_left_where_values_are_not_positive():
    axis = charts.Axis([-1.0, 0.0, 3.0], 0, 100, log=True)
    assert axis(1.0) == pytest.approx(50)
    assert axis.ticks() == [-1, 0, 1, 2, 3]


def test_wall_time_is_that_of_the_lines_after_each_start(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    assert collect(run).seconds is None
    began = made_run.BEGAN
    starts = [
        made_run.START | {"began": t, "from_step": s} for t, s in ((began, 0), (began + 85, 400), (began + 900, 800))
    ]
    made_run.write(run / "run.json", {"starts": starts})
    collected = collect(run)
    assert [start["seconds"] for start in collected.starts] == [80, 75, None]  # lines come each 10 s, until 160
    assert collected.seconds == 155


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (5.4, "5 s"), (158.2, "2 min 38 s"), (9000, "2 h 30 min"), (509_100, "5 d 21 h")],
)
def test_durations(seconds, shown):
    assert values.duration(seconds) == shown


def test_a_preview_is_reported_with_the_run_that_it_is_of(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    preview = run / "previews" / "step_00000500"
    made_run.write(preview / "reconstruct" / "metrics.json", {"mse": 0.5} | made_run.DECODED)
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    document = report_of(preview)
    assert document["title"].startswith("run, step_00000500: ") and "at step 500." in document["summary"]
    assert document["tiles"][0]["value"] == "0.5" and not document["tiles"][0]["note"].endswith("inferred")
    made_run.write(preview / "reconstruct" / "metrics.json", {"mse": 0.5} | made_run.DECODED | {"invert_steps": 9})
    assert report_of(preview)["tiles"][0]["note"].endswith(" evaluations, x_T inferred")
    assert any(block["lines"].get("loss") for block in blocks(document, "chart"))


# --- the command and the hook


def test_the_command_writes_the_three_of_them(tmp_path, caplog):
    run = made_run.digits_run(tmp_path / "run")
    main.run([f"--workdir={run}", "--task=report"])
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {"report.html", "report.md", "report.json", "metrics.json"}
    numbers = json.loads((run / "report" / "metrics.json").read_text())
    assert numbers["bytes"] == (run / "report" / "report.html").stat().st_size
    document = json.loads((run / "report" / "report.json").read_text())
    assert (run / "report" / "report.md").read_text() == markdown(document, run, run / "report")
    assert (run / "report" / "report.html").read_text() == page(document, run)
    assert [tile["value"] for tile in document["tiles"]] == ["800", "–"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("probe/metrics.json", '{"classes": ', "probe/metrics.json cannot be read .*--task=probe again"),
        ("probe/metrics.json", "[1]", "probe/metrics.json holds no object"),
        ("run.json", "{}", "run.json has no list of starts; restore it or delete it"),
        ("run.json", '{"starts": ', "run.json cannot be read .*restore it or delete it"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_old_report_stays(name, content, message, tmp_path, capsys):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "report" / "report.html", "old")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={run}", "--task=report"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert [path.name for path in (run / "report").iterdir()] == ["report.html"]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    for arguments in ([], ["--config=configs/dbae_digits.py"]):
        with pytest.raises(SystemExit) as stop:
            main.run([f"--workdir={tmp_path}", "--task=report", *arguments])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "a run's --workdir" in error or "not a run" in error
    assert not list(tmp_path.iterdir())


def test_what_other_processes_write_of_a_preview_is_gone_after_it(tmp_path, monkeypatch):
    """It would lie in a place that runs and users share, and answer for a later start."""
    folders = []

    class Task:
        needs_run, every_steps = True, 5

        def run(self, model, preview):
            folders.append(preview.task_folder("fake"))
            return {}

    class State:
        averaged = {"params": np.zeros(1)}

    monkeypatch.setattr(hooks, "mesh_of", lambda variables: None)
    config = tiny_config()
    for first in (False, False, True):
        monkeypatch.setattr(hooks, "is_first", lambda first=first: first)
        writer = types.SimpleNamespace(scalars=lambda step, values: None)
        hooks.TaskHook("fake", Task(), None, Run.at(tmp_path, config))(5, State(), writer)
    assert len(set(folders)) == 3 and [folder.exists() for folder in folders] == [False, False, True]
    assert folders[2] == tmp_path / "previews" / "step_00000005" / "fake"


def test_inside_training_it_comes_last_and_on_the_first_process_alone(tmp_path, monkeypatch):
    """The others' folders of previews hold no run, and a report reads what the other hooks have written."""
    config = tiny_config(total_steps=10)
    with config.unlocked():
        for name in ("probe", "reconstruct", "report"):
            config.tasks[name].every_steps = 5
    due = hooks.task_hooks(None, Run.at(tmp_path, config), None)
    assert [hook.name for hook in due] == ["probe", "reconstruct", "report"] and due[-1].due(10)

    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "previews" / "step_00000005" / "reconstruct" / "metrics.json", {"mse": 0.5})
    written = []

    class Board:
        def scalars(self, step, values):
            written.append((step, values))

    class State:
        averaged = None

    hook = hooks.TaskHook("report", base.build("report", {"every_steps": 5}, {}), None, Run.at(run, config))
    monkeypatch.setattr(hooks, "is_first", lambda: False)
    hook(5, State(), Board())
    assert not written
    monkeypatch.setattr(hooks, "is_first", lambda: True)
    hook(5, State(), Board())
    assert [step for step, _ in written] == [5] and written[0][1]["report/pictures"] == 0
    assert "0.5" in (run / "previews" / "step_00000005" / "report" / "report.html").read_text()
