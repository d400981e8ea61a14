"""Loggers besides metrics.jsonl: TensorBoard's files, and what Weights & Biases is given, by a stand-in of it."""

import json
import sys
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from tensorboardX.proto.event_pb2 import Event

from diffrep_jax.errors import UserError
from diffrep_jax.train import loggers
from diffrep_jax.train.settings import Settings
from diffrep_jax.train.writer import Writer
from tests.tiny import start, tiny_config

PICTURE = np.zeros((4, 6, 3), np.uint8)


class Wandb(types.ModuleType):
    """As much of wandb as is used; `runs` are those that were begun, each a dict of what it was given."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace(name="wandb")
        self.runs, self.error = [], None
        self.Image = lambda pixels: ("image", pixels.shape)

    def init(self, **settings):
        if self.error:
            raise self.error
        run = {"settings": settings, "rows": [], "metrics": [], "finished": False}
        self.runs.append(run)
        return types.SimpleNamespace(
            log=run["rows"].append,
            define_metric=lambda name, step_metric=None: run["metrics"].append((name, step_metric)),
            finish=lambda: run.update(finished=True),
        )


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def log(folder, names, start_step=0):
    config = ConfigDict({"seed": 3})
    with Writer(folder, start_step=start_step, loggers=names, config=config) as writer:
        writer.scalars(start_step + 1, {"loss": 0.5})
        writer.image(start_step + 1, "reconstruct/grid", PICTURE)


def test_each_logger_gets_the_numbers_and_the_pictures(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    log(tmp_path / "run", ("tensorboard", "wandb"))
    (run,) = wandb.runs
    assert run["rows"] == [{"step": 1, "loss": 0.5}, {"step": 1, "reconstruct/grid": ("image", (4, 6, 3))}]
    assert run["finished"] and ("*", "step") in run["metrics"]
    settings = run["settings"]
    assert (settings["name"], settings["project"], settings["config"]) == ("run", "diffrep_jax", {"seed": 3})
    assert settings["resume"] == "allow" and settings["dir"] == str(tmp_path / "run")
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert [value.tag for event in read(events) for value in event.summary.value] == ["loss", "reconstruct/grid"]
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == 0.5


def read(path):
    """The events of a TensorBoard file: length, its checksum, an event, its checksum."""
    data, at, events = path.read_bytes(), 0, []
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        events.append(Event.FromString(data[at + 12 : at + 12 + length]))
        at += 16 + length
    return events


def test_a_run_that_goes_on_is_one_run_there_too(tmp_path, wandb):
    for begin in (0, 5, 3):
        log(tmp_path, ("wandb",), begin)
    assert len({run["settings"]["id"] for run in wandb.runs}) == 1
    log(tmp_path / "wandb", ("wandb",))
    assert wandb.runs[-1]["settings"]["id"] != wandb.runs[0]["settings"]["id"]
    assert not (tmp_path / "tensorboard").exists()


def test_without_loggers_there_is_metrics_jsonl_alone(tmp_path):
    log(tmp_path, ())
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_cannot_log_is_refused_before_training(tmp_path, wandb, monkeypatch):
    with pytest.raises(UserError, match="Unknown logger 'wandbb' in config.train.loggers. Did you mean 'wandb'?"):
        Settings(loggers=("wandbb",))
    wandb.error = RuntimeError("No API key configured.\nmore")
    with pytest.raises(
        UserError, match="No API key configured.* run 'wandb login', or set WANDB_MODE=offline"
    ) as caught:
        log(tmp_path, ("wandb",))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install 'diffrep_jax\[wandb\]'"):
        start(tiny_config(loggers=("wandb",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
