"""Runs in a bucket: files by a file system that has a bucket's ways, trainings by an emulator of Google's."""

import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

from diffrep_jax import data
from diffrep_jax.data import bucket
from diffrep_jax.errors import UserError
from diffrep_jax.inference import heads
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs import layout, lock
from diffrep_jax.tasks import _code_files, _codes, base
from diffrep_jax.train import writer
from diffrep_jax.train.writer import Writer
from tests.several import Host, free_port
from tests.soak.runs import Place, digest
from tests.tiny import tiny_config


@pytest.fixture
def memory(monkeypatch):
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


def test_curves_keep_all_lines_although_nothing_can_be_appended(memory, monkeypatch):
    with Writer(memory, start_step=0, loggers=()) as curves:
        for step in range(1, 6):
            curves.scalars(step, {"loss": 1.0})
    assert steps(memory / layout.CURVES) == [1, 2, 3, 4, 5]
    monkeypatch.setattr(writer, "REWRITE_SECONDS", 0.0)
    with Writer(memory, start_step=3, loggers=()) as curves:  # a later start, from step 3
        curves.scalars(4, {"loss": 1.0})
        assert steps(memory / layout.CURVES) == [1, 2, 3, 4]  # while it goes on, too


def test_a_file_is_whole_or_as_before_and_no_other_is_left(memory):
    layout.write_json(memory / "config.json", {"a": 1})
    with pytest.raises(TypeError):
        layout.write_json(memory / "config.json", {"a": object()})
    assert layout.read_json(memory / "config.json", "") == {"a": 1}
    assert [path.name for path in memory.iterdir()] == ["config.json"]


def test_a_run_in_a_bucket_is_locked_by_what_its_file_says(memory):
    with lock.held(memory):
        assert (memory / lock.NAME).is_file()
    assert not (memory / lock.NAME).exists()
    layout.write_json(memory / lock.NAME, {"host": "another", "process": 7, "since": "yesterday"})
    with pytest.raises(UserError, match="process 7 on another since yesterday.*--force-unlock"), lock.held(memory):
        pass
    with lock.held(memory, force=True):
        pass


def test_heads_and_codes_are_read_there_and_what_needs_a_folder_refuses(memory):
    layout.write_arrays(memory / "encode" / "digits.npz", codes=np.ones((2, 3)))
    np.testing.assert_array_equal(_code_files.read(memory / "encode" / "digits.npz")["codes"], np.ones((2, 3)))
    with pytest.raises(UserError, match="digits.npz has no"):  # it was read, and is no head
        heads.read(memory / "encode" / "digits.npz")
    run = layout.Run.at(memory, tiny_config())
    with pytest.raises(UserError, match="--task=report works on a local folder, not on gs://bucket/run"):
        base.build("report", {"every_steps": 5}, {}).check(None, run.preview(5))
    with pytest.raises(UserError, match="--task=export works on a local folder.*copy the run"):
        base.build("export", {}, {}).run(None, run)


def test_codes_are_kept_there_and_made_by_one_process_at_a_time(memory, tiny_model, monkeypatch):
    monkeypatch.setattr(_codes, "PART", 8)
    config = tiny_config()
    run_config.save(config, layout.made(memory))

    def encode(count):
        settings = config.tasks.encode.to_dict() | {"split": "test", "num_images": count, "batch_size": 4}
        base.build("encode", settings, {}).run(tiny_model, layout.Run.at(memory, config))
        assert sorted(path.name for path in (memory / "encode").iterdir()) == ["digits_test.npz", "metrics.json"]
        return _code_files.read(memory / "encode" / "digits_test.npz")["rows"].tolist()

    assert encode(20) == encode(12) == list(range(20))
    held = memory / "encode" / ".digits_test.lock"
    layout.write_json(held, {"host": "another", "process": 7, "since": "yesterday"})
    with pytest.raises(UserError, match="is being made by process 7 on another since yesterday.* if it is gone delete"):
        encode(30)
    held.unlink()
    assert encode(30) == list(range(30))


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
def test_pictures_are_copied_from_a_bucket_against_their_checksum(emulator, tmp_path, monkeypatch):
    import fsspec

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    fsspec.filesystem("gs").put(str(tmp_path / "images.npz"), "gs://bucket/data/images.npz")
    files, _ = bucket._listed("gs://bucket/data/images.npz")
    assert bucket._checksum(files["."])[0] in ("MD5", "CRC32C")
    dataset = data.open_dataset("folder", split="all", image_size=8, channels=3, data_dir="gs://bucket/data/images.npz")
    np.testing.assert_array_equal(dataset[7]["image"], images[7])


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
