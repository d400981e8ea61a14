"""A signal ends training and tasks with one line at most, whatever they are at; what was complete stays."""

import signal
import time

import pytest

from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import build
from diffrep_jax.runs import checkpoint
from diffrep_jax.runs.layout import Run
from diffrep_jax.train.stop import GivenUp, StopSignal
from launch.hooks import task_hooks
from tests.test_cli import SMALL, command
from tests.tiny import run_python, start, tiny_config


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_before_the_first_step_it_ends_at_once(tmp_path, number, code):
    """While modules are loaded, data opened and the step compiled: nothing is computed yet that could be saved."""
    process = command(*SMALL, f"--workdir={tmp_path / 'run'}", wait=False)
    time.sleep(1.5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    stopped = [line for line in output.splitlines() if "Stopped by" in line]
    assert len(stopped) == 1 and number.name in stopped[0] and "Traceback" not in output
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_preview_is_given_up_and_made_again(tmp_path, monkeypatch):
    """Decoding gets a signal in its middle: the state of that step is saved, and its preview the next start's first."""
    config = tiny_config(total_steps=3)
    with config.unlocked():
        config.tasks.reconstruct.every_steps = 2
    method, run = build(config.method), Run.at(tmp_path, config)
    decode, given_up = Model.decode, []

    def interrupted(*arguments, **named):
        try:
            signal.raise_signal(signal.SIGINT)
        except GivenUp:
            given_up.append(True)
            raise
        return decode(*arguments, **named)

    monkeypatch.setattr(Model, "decode", interrupted)
    with pytest.raises(SystemExit) as stop:
        start(config, tmp_path, task_hooks(method, run, None), method)
    assert stop.value.code == 130 and given_up
    with checkpoint.opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 2
    preview = tmp_path / "previews" / "step_00000002" / "reconstruct" / "metrics.json"
    assert not preview.exists()

    monkeypatch.setattr(Model, "decode", decode)
    state = start(config, tmp_path, task_hooks(method, run, None), method)
    assert int(state.step) == 3 and preview.is_file()


def test_what_is_not_interrupted_is_done_and_the_handlers_come_back():
    before, done = signal.getsignal(signal.SIGINT), []
    with StopSignal() as stop:
        stop.saving = True
        stop.attempt(lambda: done.append(1))
        signal.raise_signal(signal.SIGTERM)  # outside of an attempt it is noted alone
        deadline = time.monotonic() + 10
        while not stop.received and time.monotonic() < deadline:
            time.sleep(0.01)
        stop.attempt(lambda: done.append(2))  # not begun any more
        assert stop.received == signal.SIGTERM and stop.wish.exit_code == 143
    assert done == [1] and signal.getsignal(signal.SIGINT) is before


def test_in_the_last_moments_of_a_process_a_signal_changes_nothing():
    """When Python takes itself apart, all is done: the exit code says so."""
    run_python(
        "import os, signal\n"
        "from diffrep_jax.train import stop\n"
        "stop.watch('all stays')\n"
        "class Last:\n"
        "    def __del__(self, kill=os.kill, me=os.getpid()):\n"
        "        kill(me, signal.SIGTERM)\n"
        "last = Last()\n"
    )
