"""Two processes of one run: they stop together, notice who is gone, refuse to differ, and share or leave tasks."""

import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest

from tests.several import free_port, hosts, metrics
from tests.test_cli import command

TINY = {
    "data.image_size": 8,
    "method.unet.width": 8,
    "method.unet.mult": "(1,)",
    "method.unet.attention": "()",
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.checkpoint_every": 1000,
    "tasks.sample.every_steps": 0,
}
TRAINING = ["--config=configs/ddpm_digits.py", *(f"--config.{name}={value}" for name, value in TINY.items())]


def ended(processes, seconds=600):
    return [process.code(seconds) for process in processes]


def one_line(process):
    """The only line, without what a process says at the start."""
    lines = [line for line in process.output.splitlines() if "  " not in line or line.startswith("error")]
    assert len(lines) == 1, process.output
    return lines[0]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_any_number_of_processes_goes_on(tmp_path):
    """2 processes, stopped by a signal to the second, then 1, then 2: the losses are those of an uninterrupted run."""
    arguments = [*TRAINING, f"--workdir={tmp_path / 'elastic'}"]
    both = hosts(2, *arguments, "--config.train.total_steps=100000")
    both[0].until("step 2/")
    both[1].process.send_signal(signal.SIGTERM)
    assert ended(both) == [143, 143], both[0].output
    said = [line for line in both[0].output.splitlines() if "Stopped by SIGTERM (process 1 of 2" in line]
    assert len(said) == 1 and "Traceback" not in both[0].output + both[1].output and not both[1].output
    (saved,) = (int(path.name) for path in (tmp_path / "elastic" / "checkpoints").iterdir())
    assert f"saved at step {saved}." in said[0]
    code, output = command(*arguments, f"--config.train.total_steps={saved + 2}")
    assert code == 0, output
    both = hosts(2, *arguments, f"--config.train.total_steps={saved + 4}")
    assert ended(both) == [0, 0], both[0].output
    code, output = command(*TRAINING, f"--workdir={tmp_path / 'one'}", f"--config.train.total_steps={saved + 4}")
    assert code == 0, output
    elastic, one = (metrics(tmp_path / name) for name in ("elastic", "one"))
    assert len(one) == saved + 4
    assert elastic == [pytest.approx(line, rel=1e-4) for line in one]


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_other_leaves_within_a_minute(tmp_path):
    """Here the first one, which all are connected to."""
    both = hosts(2, *TRAINING, f"--workdir={tmp_path}", "--config.train.total_steps=100000")
    both[0].until("step 1/")
    both[0].process.kill()
    began = time.monotonic()
    assert both[1].code(60) == 75 and time.monotonic() - began < 60
    last = both[1].output.splitlines()[-1]
    assert last.startswith("error: Process 0 of 2") and "gone" in last
    assert "Traceback" not in both[1].output and "stack trace" not in both[1].output


@pytest.mark.slow
def test_where_the_whole_first_host_dies_the_others_say_so_and_leave(tmp_path):
    """Its process and, with it, the coordination service, which lives in another one."""
    both = hosts(2, *TRAINING, f"--workdir={tmp_path}", "--config.train.total_steps=100000")
    both[0].until("step 1/")
    first = both[0].process.pid
    children = pathlib.Path(f"/proc/{first}/task/{first}/children").read_text().split()
    (service,) = [int(pid) for pid in children if "coordinator.py" in pathlib.Path(f"/proc/{pid}/cmdline").read_text()]
    for pid in (first, service):
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    assert both[1].code(60) == 75 and time.monotonic() - began < 60
    assert one_line(both[1]).startswith("error: Process 0 of 2")
    assert "its whole host" in both[1].output


@pytest.mark.slow
def test_processes_that_differ_are_refused_in_one_line(tmp_path):
    both = hosts(2, *TRAINING, f"--workdir={tmp_path}", each={1: ["--config.optim.lr=0.5"]})
    assert ended(both) == [2, 2]
    lines = [one_line(process) for process in both]
    assert lines[0] == lines[1] and "process 1 of 2" in lines[0] and "config.optim.lr=0.5" in lines[0]
    assert not list(tmp_path.glob("checkpoints/*")) and not (tmp_path / "config.json").exists()


@pytest.mark.slow
def test_an_error_of_one_process_ends_the_other(tmp_path):
    both = hosts(2, *TRAINING, f"--workdir={tmp_path}", each={1: ["--config.data.split=none"]})
    assert ended(both) == [2, 2]
    own, others = one_line(both[1]), one_line(both[0])
    assert own.startswith("error: ") and "none" in own
    assert others.startswith("error: Process 1 of 2") and own.removeprefix("error: ").rstrip(".") in others


def test_processes_that_do_not_come_are_not_waited_for_without_end():
    cluster = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    code, output = command("--multihost", DIFFREP_JOIN_SECONDS="2", **cluster)
    assert code == 2 and output.count("\n") == 1 and "of 2 processes came to localhost:" in output


@pytest.mark.parametrize("value", ["localhost", "localhost:port", "localhost:0", ":"])
def test_a_wrong_address_is_one_line(value):
    cluster = {"JAX_COORDINATOR_ADDRESS": value, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    code, output = command("--multihost", **cluster)
    assert code == 2 and output.count("\n") == 1 and "host:port" in output


@pytest.mark.slow
def test_two_processes_encode_what_one_does_and_the_first_alone_does_other_tasks(tiny_run, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(tiny_run, tmp_path / name)
    code, output = command("--task=encode", f"--workdir={tmp_path / 'one'}")
    assert code == 0, output
    for task in ("encode", "export"):
        both = hosts(2, f"--task={task}", f"--workdir={tmp_path / 'two'}")
        assert ended(both) == [0, 0], both[0].output + both[1].output
    one, two = (np.load(tmp_path / name / "encode" / "digits_train.npz") for name in ("one", "two"))
    np.testing.assert_allclose(two["codes"], one["codes"], atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "two" / "encode").iterdir()) == ["digits_train.npz", "metrics.json"]
    assert list((tmp_path / "two" / "export").iterdir())
