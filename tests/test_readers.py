"""What a reader of a run sees while a training deletes checkpoints, and completes others."""

import shutil
import threading

import jax
import numpy as np
import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from diffrep_jax.errors import UserError
from diffrep_jax.runs import checkpoint, checksums

HERE = jax.sharding.SingleDeviceSharding(jax.devices()[0])
TEMPLATE = {"params": {"a": jax.ShapeDtypeStruct((4,), np.float32, sharding=HERE)}}


@pytest.fixture
def run(tmp_path):
    """Whole checkpoints of the steps 2 and 4, whose parameters are their step; that of 4 lies elsewhere as yet."""
    with checkpoint.opened(tmp_path / "run", keep_last=2, writer=True) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, {"params": {"a": jax.numpy.full(4, step, np.float32)}})
    shutil.move(tmp_path / "run" / "checkpoints" / "4", tmp_path / "4")
    return tmp_path / "run" / "checkpoints"


def restored(run):
    with checkpoint.opened(run.parent) as checkpoints:
        return float(checkpoints.restore(TEMPLATE)["params"]["a"][0])


def test_a_checkpoint_that_is_being_deleted_is_left_for_a_newer_one(run, monkeypatch):
    read = ocp.load_checkpointables

    def read_while_it_goes(folder, *more):
        if folder.name == "2":
            shutil.move(run.parent.parent / "4", run / "4")
            shutil.rmtree(run / "2" / "params")
        return read(folder, *more)

    monkeypatch.setattr(ocp, "load_checkpointables", read_while_it_goes)
    assert restored(run) == 4


def test_what_fails_and_stays_the_newest_is_not_tried_for_ever(run, monkeypatch):
    tried = []

    def broken(folder, *more):
        tried.append(folder.name)
        raise ValueError("a bug")

    monkeypatch.setattr(ocp, "load_checkpointables", broken)
    with pytest.raises(ValueError, match="a bug"):
        restored(run)
    assert tried == ["2"]


def test_files_that_go_while_they_are_summed_are_missing(run, monkeypatch):
    monkeypatch.setattr(checksums, "_sum", lambda path: path.with_name("gone").open("rb"))
    assert "is missing" in str(checksums.damage(epath.Path(run / "2")))


def test_a_newest_one_that_is_not_complete_yet_is_waited_for(run, monkeypatch, tmp_path):
    """The one before it goes at the same time: with keep_last=1 there may be no other."""
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.1)
    shutil.rmtree(run / "2" / "params")
    seal = (tmp_path / "4" / checksums.NAME).read_bytes()
    (tmp_path / "4" / checksums.NAME).unlink()
    shutil.move(tmp_path / "4", run / "4")
    completed = threading.Timer(0.3, (run / "4" / checksums.NAME).write_bytes, [seal])
    completed.start()
    assert restored(run) == 4


def test_a_newest_one_that_is_never_completed_is_named_once(run, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(checkpoint, "WAIT_SECONDS", 0.01)
    shutil.rmtree(run / "2" / "params")
    (tmp_path / "4" / checksums.NAME).unlink()
    shutil.move(tmp_path / "4", run / "4")
    with pytest.raises(UserError, match=r"No whole checkpoint is left .* 4, it was not completed"):
        restored(run)
    assert sum("step 4" in line for line in caplog.messages) == 1
