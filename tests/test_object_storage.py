"""Runs in a bucket: files by a file system that has a bucket's ways, trainings by an emulator of Google's."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout, lock
from diffrep_jax.train import writer
from diffrep_jax.train.writer import Writer
from tests.several import Host, free_port
from tests.soak.runs import Place, digest


@pytest.fixture
def bucket(monkeypatch):
    """gs://bucket, in memory: opened to append, an object is overwritten, as gcsfs has it."""
    from etils.epath import backend
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol = ("gs", "gcs")
        store, pseudo_dirs = {}, [""]
        cachable = False

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).replace("gs://", "memory://"))

        def _open(self, path, mode="rb", **more):
            return super()._open(path, mode.replace("a", "w"), **more)

    files = Bucket()
    monkeypatch.setattr(type(backend.fsspec_backend), "_get_filesystem", lambda _, name: files)
    return epath.Path("gs://bucket/run")


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_curves_keep_all_lines_although_nothing_can_be_appended(bucket, monkeypatch):
    with Writer(bucket, start_step=0, loggers=()) as curves:
        for step in range(1, 6):
            curves.scalars(step, {"loss": 1.0})
    assert steps(bucket / layout.CURVES) == [1, 2, 3, 4, 5]
    monkeypatch.setattr(writer, "REWRITE_SECONDS", 0.0)
    with Writer(bucket, start_step=3, loggers=()) as curves:  # a later start, from step 3
        curves.scalars(4, {"loss": 1.0})
        assert steps(bucket / layout.CURVES) == [1, 2, 3, 4]  # while it goes on, too


def test_a_file_is_whole_or_as_before_and_no_other_is_left(bucket):
    layout.write_json(bucket / "config.json", {"a": 1})
    with pytest.raises(TypeError):
        layout.write_json(bucket / "config.json", {"a": object()})
    assert layout.read_json(bucket / "config.json", "") == {"a": 1}
    assert [path.name for path in bucket.iterdir()] == ["config.json"]


def test_a_run_in_a_bucket_is_locked_by_what_its_file_says(bucket):
    with lock.held(bucket):
        assert (bucket / lock.NAME).is_file()
    assert not (bucket / lock.NAME).exists()
    layout.write_json(bucket / lock.NAME, {"host": "another", "process": 7, "since": "yesterday"})
    with pytest.raises(UserError, match="process 7 on another since yesterday.*--force-unlock"), lock.held(bucket):
        pass
    with lock.held(bucket, force=True):
        pass


def test_a_bucket_without_the_library_is_one_line(monkeypatch):
    from launch.failures import explained

    line = explained(ImportError("Please install gcsfs"), "gs://bucket/run", "train")
    assert line and "gs://bucket/run" in line and "diffrep_jax[gcs]" in line


# --- with the emulator: pip install gcp-storage-emulator gcsfs

EMULATOR = """
import sys, time
from gcp_storage_emulator.server import create_server
create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="bucket").start()
time.sleep(600)
"""


@pytest.fixture
def emulator(monkeypatch):
    if not all(map(importlib.util.find_spec, ("gcp_storage_emulator", "gcsfs"))):
        pytest.skip("needs gcp-storage-emulator and gcsfs")
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", EMULATOR, str(port)], stderr=subprocess.DEVNULL)
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, f"http://localhost:{port}")
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    yield
    process.kill()


@pytest.mark.slow
def test_a_training_in_a_bucket_is_killed_and_goes_on_to_the_same_bits(emulator, tmp_path):
    """Some two minutes: the emulator knows no call to move an object, which is tried for half a minute each time."""
    place = Place(pathlib.Path(tmp_path), 6)
    wanted = place.whole("whole")
    run = ["--workdir=gs://bucket/run"]
    host = Host(*place.arguments("whole"), *run, **place.environment)
    host.until("step 5/")
    os.kill(host.process.pid, signal.SIGKILL)
    assert host.code() == -signal.SIGKILL
    host = Host(*place.arguments("whole"), *run, "--force-unlock", **place.environment)
    assert host.code() == 0 and "Going on from the checkpoint of step" in host.output, host.output
    assert digest(epath.Path("gs://bucket/run"), 6) == wanted
    assert steps(epath.Path("gs://bucket/run") / layout.CURVES) == [1, 2, 3, 4, 5, 6]
