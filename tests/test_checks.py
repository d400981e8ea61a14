"""What previews and the run's end will need is looked at before training: refused in one line, nothing written."""

import logging
import pathlib
import shutil
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.runs import space
from diffrep_jax.runs.layout import Run
from launch import main
from launch.hooks import task_hooks
from tests.test_cli import SMALL
from tests.tiny import tiny_config


def configured(task, **fields):
    """A preview of the task in the second step."""
    config = tiny_config(total_steps=4)
    with config.unlocked():
        for name, value in fields.items():
            section = config.sampling if name == "encode" else config.tasks[task]
            section[name] = value
        config.tasks[task].every_steps = 2
    return config.lock()


def hook_of(config, workdir):
    [hook] = task_hooks(build(config.method), Run.at(workdir, config), None)
    return hook


@pytest.mark.parametrize(
    ("task", "fields", "message"),
    [
        ("reconstruct", {"split": "tests"}, "Unknown split 'tests'"),
        ("reconstruct", {"prefixes": (99,)}, "asks for 99 blocks"),
        ("reconstruct", {"encode": "sample"}, "the encoder of this DBAE is deterministic"),
        ("timesteps", {"split": "valid"}, "Unknown split 'valid'"),
        ("interpolate", {"first": "nowhere.png"}, "No image file nowhere.png"),
        ("interpolate", {"second": "1000000"}, "There is no image 1000000"),
        ("interpolate", {"trajectory": True}, "DBAE has none"),
        ("counterfactual", {"blocks": 3}, "blocks"),
        ("counterfactual", {"ranges": ((7, 2),)}, "ranges"),
        ("sample", {}, "An auto-encoder needs codes to start from"),
        ("sample", {"prior": "nowhere"}, "prior=nowhere is no run"),
        ("manipulate", {"attribute": "inkk"}, "Did you mean 'ink'"),
        ("manipulate", {"head": "none.npz"}, "head=none.npz is no file"),
        ("manipulate", {"promask": 9}, "promask 9 is above latent_dim=8"),
        ("probe", {"num_images": 10**6}, "1000000 images were asked for"),
        ("evaluate", {"split": "tests"}, "Unknown split 'tests'"),
        ("evaluate", {"num_images": 10**6}, "num_images 1000000"),
        ("evaluate", {"reconstructions": "none.zip"}, "none.zip does not exist"),
        ("evaluate", {"generated": ("none.npz",)}, "none.npz does not exist"),
        ("evaluate", {"disentanglement_images": 10, "attributes": ("inkk",)}, "Did you mean 'ink'"),
        ("evaluate", {"disentanglement_images": 10**6}, "1000000 images were asked for"),
        ("evaluate", {"rows": ({"encode": "sample"},)}, "the encoder of this DBAE is deterministic"),
    ],
)
def test_what_a_preview_lacks_is_said_before_the_first_step(tmp_path, task, fields, message):
    fields |= {"without": ("lpips", "fid")} if task == "evaluate" else {}
    with pytest.raises(UserError) as refused:
        hook_of(configured(task, **fields), tmp_path / "run").check()
    assert message in str(refused.value)
    assert f"That is for the preview config.tasks.{task}: change this section" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_prior_of_another_auto_encoder_is_refused_at_the_start(tmp_path, tiny_run):
    with pytest.raises(UserError, match="is a DBAE run, no prior"):
        hook_of(configured("sample", prior=str(tiny_run)), tmp_path / "run").check()


def test_a_preview_beyond_the_last_step_needs_nothing():
    config = configured("reconstruct", split="tests")
    config.tasks.reconstruct.every_steps = 5
    assert task_hooks(build(config.method), Run.at("run", config), None) == []


def test_tasks_that_have_what_they_need_pass(tmp_path):
    for task in ("reconstruct", "interpolate", "counterfactual", "timesteps", "manipulate", "probe", "report"):
        hook_of(configured(task), tmp_path / "run").check()
    assert not list(tmp_path.iterdir())


def test_a_run_that_does_not_begin_leaves_nothing(tmp_path, capsys):
    """One image has no test split for the preview; the run to start from is none; the one image does not decode."""
    (tmp_path / "one").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one" / "a.png")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no image")
    preview, without = (f"--config.tasks.reconstruct.every_steps={n}" for n in (2, 0))
    small = [argument for argument in SMALL if argument != preview]
    folder = ["--config=configs/dbae_folder.py", "--config.data.split=all", *small, "--config.data.workers=0"]
    cases = [
        ([f"--data_dir={tmp_path / 'one'}", preview], "too few for the split 'test'"),
        ([f"--data_dir={tmp_path / 'one'}", without, "--config.train.init_from=nowhere"], "nowhere"),
        ([f"--data_dir={tmp_path / 'bad'}", without], "a.png"),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stop:
            main.run([*folder, "--config.train.total_steps=2", f"--workdir={tmp_path / 'run'}", *arguments])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and message in error, error
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "one"]


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("free", "short"), [(2_999, True), (3_000, False)])
def test_a_disk_without_room_for_the_checkpoints_is_named(tmp_path, monkeypatch, caplog, free, short):
    """One of four checkpoints of 1,000 bytes is there, in a folder whose name has digits as well."""
    (tmp_path / "run1" / "checkpoints" / "5").mkdir(parents=True)
    asked: list[pathlib.Path] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or Usage(10**6, 0, free))
    with caplog.at_level(logging.WARNING):
        space.warn_if_short(tmp_path / "run1", 1_000, 4)
    assert ("make room" in caplog.text) == short and asked == [tmp_path / "run1"]
    space.warn_if_short(tmp_path / "new" / "run", 1_000, 4)
    assert asked[-1] == tmp_path  # where the folder will be made
    space.warn_if_short("gs://bucket/run", 1_000, 4)
    assert len(asked) == 2


def test_the_size_of_a_state_is_that_of_its_arrays():
    assert space.size_of({"a": np.zeros((3, 5), np.float32), "b": (np.zeros(7, np.float64), np.int32(1))}) == 120
