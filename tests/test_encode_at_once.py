"""Two processes that encode the same images for a run: one does it, the other is told so in one line."""

import contextlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.tasks import _codes
from tests.task_runs import kept, killed_at_the_third_part, run_task
from tests.tiny import ROOT

FIELDS = {"split": "test", "num_images": 20, "batch_size": 4}

HOLDER = """
import sys, time
from etils import epath
from diffrep_jax.tasks import _codes
with _codes._sole(epath.Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(300)
"""


@contextlib.contextmanager
def another_process(path):
    """One that makes the codes of this file, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_the_second_process_is_told_of_the_first_and_a_killed_one_holds_nobody_up(tiny_model, tmp_path, monkeypatch):
    workdir = kept(tmp_path)
    path = workdir / "encode" / "digits_test.npz"
    monkeypatch.setattr(_codes, "PART", 8)
    with killed_at_the_third_part(monkeypatch):
        run_task("encode", tiny_model, workdir, **FIELDS)
    parts = sorted((workdir / "encode" / "digits_test.parts").iterdir())
    with another_process(path) as process:
        message = rf"{path} is being made by process {process.pid} on .*; wait for it, or if it is gone delete .*lock"
        with pytest.raises(UserError, match=message):
            run_task("encode", tiny_model, workdir, **FIELDS)
        assert sorted((workdir / "encode" / "digits_test.parts").iterdir()) == parts and not path.exists()
        run_task("encode", tiny_model, workdir, **FIELDS | {"split": "train"})  # others may be made meanwhile
    run_task("encode", tiny_model, workdir, **FIELDS)
    with np.load(path) as file:
        assert file["rows"].tolist() == list(range(20))
    left = {item.name for item in path.parent.iterdir()}
    assert left == {"digits_test.npz", "digits_train.npz", "metrics.json"}


def test_codes_that_are_there_are_read_while_another_process_makes_more(tiny_model, tmp_path):
    workdir = kept(tmp_path)
    run_task("encode", tiny_model, workdir, **FIELDS)
    with another_process(workdir / "encode" / "digits_test.npz"):
        assert run_task("encode", tiny_model, workdir, **FIELDS | {"num_images": 12})[0]["images"] == 12
        with pytest.raises(UserError, match="wait for it"):
            run_task("encode", tiny_model, workdir, **FIELDS | {"num_images": 30})
