"""Locks where the system has none, as in a bucket: what a file says, which ends with its process all the same."""

import json
import os
import platform
import signal
import subprocess
import sys

import pytest
from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.runs import lock
from tests.tiny import ROOT

HOLDER = """
import sys, time
from diffrep_jax.train import stop
stop.watch("what was complete stays")
from etils import epath
from diffrep_jax.runs import lock
sys.modules["fcntl"] = None  # no locks of the system's
with lock.holding(epath.Path(sys.argv[1]), "it is held", "or not"):
    print("holds", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def unlocked(monkeypatch):
    """A file system without locks."""
    monkeypatch.setitem(sys.modules, "fcntl", None)


def take(path):
    with lock.holding(epath.Path(path), "it is held", "or not"):
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_lock_goes_with_a_process_that_a_signal_ends(tmp_path, unlocked, number, code):
    """By its own hand, for the next may be on another host; a killed one holds nobody up on its host."""
    path = tmp_path / ".held"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "holds\n"
    with pytest.raises(UserError, match=f"it is held by process {process.pid} on .*; wait for it, or not"):
        take(path)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code and said.count("\n") <= 1
    assert path.exists() == (number == signal.SIGKILL)
    take(path)


def test_a_process_of_the_same_number_on_this_host_is_gone(tmp_path, unlocked):
    """A container that starts again has the name and the numbers of the one before."""
    path = tmp_path / ".held"
    holder = {"host": platform.node(), "process": os.getpid(), "since": "yesterday"}
    path.write_text(json.dumps(holder))
    take(path)
    path.write_text(json.dumps(holder | {"host": "another"}))
    with pytest.raises(UserError, match="it is held by process .* on another since yesterday"):
        take(path)
    path.write_text(json.dumps(holder | {"process": os.getppid()}))
    with pytest.raises(UserError, match="it is held by process"):
        take(path)


def test_a_lock_that_was_taken_from_a_process_is_left_to_its_taker(tmp_path, unlocked):
    path = tmp_path / ".held"
    with lock.holding(epath.Path(path), "it is held", "or not"):
        path.write_text(json.dumps({"host": "another", "process": 1}))
        lock.let_go()
        assert path.exists()
    lock.let_go()
    assert path.exists()
