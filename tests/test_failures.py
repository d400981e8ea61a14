"""What the machine refuses is one line with place and remedy, whoever raises it and however it is wrapped."""

import errno
import json
import os
import pathlib
import re
import resource
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import config as configs
from diffrep_jax import sections
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.runs import checkpoint
from diffrep_jax.train.writer import Writer
from launch import failures, main
from tests.coded_models import small_config
from tests.test_cli import SMALL
from tests.tiny import start, tiny_config


class Once:
    """A hook that does something after a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def check(self):
        pass

    def due(self, step):
        return step == self.step

    def missed(self, step):
        return False

    def __call__(self, step, state, writer):
        self.action()


def wrapped(inner, *outer):
    """`inner` as the cause of the first, which is that of the next ..."""
    for error in outer:
        try:
            raise error from inner
        except BaseException as raised:
            inner = raised
    return inner


def raised_while_handling(inner, outer):
    try:
        try:
            raise inner
        except Exception:
            raise outer  # noqa: B904 (the context is what this is about)
    except Exception as raised:
        return raised


TENSORSTORE = (
    'RESOURCE_EXHAUSTED: Failed writing: "/run/checkpoints/4.tmp/d/c5": Failed to write 1300051 bytes to file 45: '
    "No space left on device [os_error_code='28']"
)
FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/metrics.jsonl")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FULL, ("/run:", "no space", "make room")),
        (OSError(errno.ENOSPC, "No space", "/data/out.lmdb"), ("/data/out.lmdb:", "no space")),
        (wrapped(FULL, RuntimeError("save failed"), ValueError("outer")), ("/run:", "no space")),
        (raised_while_handling(FULL, RuntimeError("closing failed")), ("/run:", "no space")),
        (ExceptionGroup("threads", [KeyError("a"), FULL]), ("/run:", "no space")),
        (ValueError(TENSORSTORE), ("/run:", "no space", "another disk")),
        (RuntimeError("worker: [Errno 122] Disk quota exceeded: '/data/a.png'"), ("/data/a.png", "quota")),
        (
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            ("/run:", "no space"),
        ),
        (OSError(errno.EROFS, "Read-only", "/run/.lock"), ("/run:", "read-only")),
        (OSError(errno.EACCES, "Permission denied", "/data/b.png"), ("/data/b.png", "permission")),
        (OSError(errno.EIO, "Input/output error"), ("/run:", "input/output")),
        (OSError(errno.EMFILE, "Too many open files"), ("/run:", "ulimit -n", "data.workers")),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/run/" + "a" * 300), ("too long", "shorter")),
        (OSError(errno.EFBIG, "File too large", "/run/a"), ("/run/a", "ulimit -f")),
        (OSError(errno.ENOSPC, "No space left on device", "/psm_1a2b"), ("worker_kind=thread", "--shm-size")),
        (RuntimeError("Worker process was terminated unexpectedly with exit code -7. Search"), ("--shm-size", "bus")),
        (RuntimeError("Worker process was terminated unexpectedly with exit code -9."), ("data.workers", "memory")),
        (MemoryError(), ("microbatch_size", "remat", "mesh.fsdp")),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"), ("microbatch_size",)),
        (RuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY"), ("microbatch_size", "checkpoint stays")),
        (UnicodeEncodeError("utf-8", "caf\udce9.png", 3, 4, "surrogates not allowed"), ("caf", "rename")),
        (ValueError("embedded null byte"), ("NUL",)),
        (wrapped(UserError("--data_dir is wrong."), RuntimeError("in a thread")), ("--data_dir is wrong.",)),
    ],
)
def test_the_line_names_place_and_remedy(error, words):
    line = failures.explained(error, "/run", "train")
    assert line is not None and "\n" not in line
    assert not [word for word in words if word not in line], line


def test_fields_that_are_named_where_memory_runs_out_are_there():
    line = failures.explained(MemoryError(), "/run", "train") or ""
    names = re.findall(r"config\.([\w.]+\w)", line)
    assert names == ["train.microbatch_size", "method.remat", "mesh.fsdp"]
    for config in (tiny_config(), small_config("diti"), small_config("diffae")):
        configs.override(config, dict(zip(names, ("2", "True", "1"), strict=True)))
        sections.check(config)
        assert build(config.method).remat


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("28"), AssertionError(), ValueError("[os_error_code='0']")])
def test_a_fault_of_the_program_is_not_explained_away(error):
    assert failures.explained(error, "/run", "train") is None


def test_an_error_that_was_dealt_with_is_no_cause():
    try:
        try:
            raise FULL
        except OSError:
            raise TypeError("a bug") from None
    except TypeError as error:
        assert failures.explained(error, "/run", "train") is None


def test_a_task_is_given_its_own_remedy():
    line = failures.explained(MemoryError(), "/run", "evaluate")
    assert line and "config.tasks.evaluate" in line and "microbatch" not in line


def test_a_file_that_may_not_grow_ends_training_and_leaves_the_last_checkpoint(tmp_path, tiny_run, capsys, monkeypatch):
    """A disk that is full, as every user can make one: from the sixth step on files end at 20 kB."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    hook = Once(5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1])))
    monkeypatch.setattr("launch.hooks.task_hooks", lambda *_: [hook])
    try:
        with pytest.raises(SystemExit) as stop:
            main.run([f"--workdir={run}", "--config.train.total_steps=50", "--config.train.checkpoint_every=6"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "ulimit -f" in error and str(run) in error
    assert len([line for line in error.splitlines() if "Warning" not in line and line.startswith("error")]) == 1
    with checkpoint.opened(run) as checkpoints:
        assert checkpoints.latest_step() == 4
    state = start(tiny_config(total_steps=6), run)  # and it goes on from there
    assert int(state.step) == 6


def test_a_folder_that_is_removed_while_it_is_trained_ends_training(tmp_path, tiny_run, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    monkeypatch.setattr("launch.hooks.task_hooks", lambda *_: [Once(5, lambda: shutil.rmtree(run))])
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={run}", "--config.train.total_steps=50", "--config.train.checkpoint_every=6"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and f"{run} was removed or renamed" in error and error.count("\n") == 1


def test_a_checksum_that_cannot_be_written_is_not_passed_over(tmp_path, monkeypatch):
    """It is written in a thread, by which the checkpoint counts as whole."""

    def full(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

    monkeypatch.setattr("diffrep_jax.runs.checksums.seal", full)
    with pytest.raises(OSError, match="No space left"), checkpoint.opened(tmp_path, writer=True) as checkpoints:
        checkpoints.save(1, {"params": {"w": jnp.ones(4)}})


def test_curves_that_cannot_be_written_are_said_by_whoever_writes(tmp_path):
    """No thread of TensorBoard's keeps it to itself, or waits for ever."""
    with pytest.raises(OSError), Writer(tmp_path, start_step=0) as writer:
        for step in range(1, 31):
            if step == 20:
                os.close(writer._loggers[0]._file._py_recordio_writer._writer.fileno())
            writer.scalars(step, {"loss": 1.0})
            writer.image(step, "grid", np.zeros((64, 64, 3), np.uint8))


def test_the_curves_are_read_by_tensorboards_own_reader(tmp_path):
    """A start from an earlier step takes the later ones back."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.record_writer import RecordWriter  # noqa: F401 (the same form that is read here)

    with Writer(tmp_path, start_step=4) as writer:
        writer.scalars(5, {"loss": 0.5})
        writer.image(5, "reconstruct/grid", np.zeros((4, 4, 3), np.uint8))
    [file] = (tmp_path / "tensorboard").iterdir()
    content, events = file.read_bytes(), []
    while content:  # a record: its length in 8 bytes, their checksum in 4, the event, its checksum in 4
        length = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    assert events[0].file_version and events[1].step == 5
    assert events[1].session_log.status == event_pb2.SessionLog.START
    assert events[2].step == 5 and events[2].summary.value[0].simple_value == 0.5
    assert events[3].summary.value[0].tag == "reconstruct/grid"
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["loss"] == 0.5


def test_a_workdir_with_too_long_a_name_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={tmp_path / ('a' * 300)}", "--config=configs/dbae_digits.py", *SMALL])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1, error
    assert not list(pathlib.Path(tmp_path).iterdir())
