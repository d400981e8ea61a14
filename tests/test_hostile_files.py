"""Runs and data of strangers: links are not followed, no program is started, nothing outside the folder is touched."""

import json
import os

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.port import config_yml
from diffrep_jax.report import embed
from diffrep_jax.report.collect import collect
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from diffrep_jax.train.writer import Writer
from tests import made_run
from tests.tiny import tiny_config

DEEP = "[" * 200_000
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/ran) (w) file\nshowpage\n%%EOF\n"


def test_a_link_in_a_runs_folder_is_not_written_through(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "metrics.json").write_text("mine")
    run = Run.at(tmp_path / "run", tiny_config())
    run.folder.mkdir()
    os.symlink(outside, run.folder / "report")
    with pytest.raises(UserError, match="report is a link to"):
        run.write_numbers("report", {"a": 1})
    os.symlink(outside / "metrics.json", run.folder / "metrics.jsonl")
    with pytest.raises(UserError, match="metrics.jsonl is a link to"):
        Writer(run.folder, start_step=0)
    (run.folder / "probe").mkdir()
    os.symlink(outside / "metrics.json", run.folder / "probe" / "metrics.json")
    run.write_numbers("probe", {"a": 1})  # takes the link's place
    assert (outside / "metrics.json").read_text() == "mine" and len(list(outside.iterdir())) == 1
    assert json.loads((run.folder / "probe" / "metrics.json").read_text()) == {"a": 1}


def test_a_report_shows_no_picture_that_lies_elsewhere(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.5})
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "private.png")
    os.symlink(tmp_path / "private.png", run / "reconstruct" / "private.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(run / "reconstruct" / "own.png")
    shown = collect(run).pictures["reconstruct"]
    assert "reconstruct/own.png" in shown and "reconstruct/private.png" not in shown


def test_a_report_opens_pictures_alone(tmp_path):
    """Pillow would hand an EPS to Ghostscript, whatever its name is."""
    path = tmp_path / "sample" / "grid.png"
    path.parent.mkdir()
    path.write_bytes(EPS)
    with pytest.raises(UserError, match="grid.png cannot be read.*run --task=sample again"):
        embed.embed([path], 10**6)


def test_nesting_without_end_is_a_damaged_file(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    (run / "probe").mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text(DEEP + "\n")
    (run / "sample").mkdir()
    (run / "sample" / "metrics.json").write_text(DEEP)
    with pytest.raises(UserError, match="sample/metrics.json cannot be read"):
        collect(run)
    (tmp_path / "config.yml").write_text("a: " + "[" * 5_000)
    with pytest.raises(UserError, match="config.yml"):
        config_yml.read(tmp_path / "config.yml")


def test_a_config_value_is_no_path_of_an_export(tiny_run, tiny_model, tmp_path):
    values = tiny_config().to_dict()
    values["optim"]["ema_decay"] = "../../outside"
    with pytest.raises(UserError, match="ema_decay '../../outside' is no number"):
        base.build("export", {}, {}).run(tiny_model, Run.at(tiny_run, ConfigDict(values)))
