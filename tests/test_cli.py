"""The command: trains, goes on after a kill, runs tasks; bad input is one line and exit code 2."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import lmdb
import numpy as np
import pytest
from PIL import Image

from diffrep_jax.tasks import base
from launch import main
from tests.tiny import ROOT

SMALL = [
    "--config.data.image_size=8",
    "--config.method.latent_dim=8",
    "--config.method.unet.width=8",
    "--config.method.unet.mult=(1,)",
    "--config.method.unet.attention=()",
    "--config.method.encoder.width=8",
    "--config.method.encoder.mult=(1,2)",
    "--config.method.encoder.attention=()",
    "--config.method.generator.width=2",
    "--config.method.dtype=float32",
    "--config.train.batch_size=8",
    "--config.train.log_every=1",
    "--config.tasks.reconstruct.every_steps=2",
    "--config.tasks.reconstruct.num_images=8",
    "--config.sampling.steps=2",
]


def command(*arguments, wait=True, **environment):
    process = subprocess.Popen(
        [sys.executable, ROOT / "launch" / "main.py", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
    )
    if not wait:
        return process
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """A folder with an LMDB in CelebA's layout: 200 JPEGs of 178 x 218."""
    folder = tmp_path_factory.mktemp("data")
    with lmdb.open(str(folder / "celeba.lmdb"), map_size=2**27) as env, env.begin(write=True) as txn:
        for i in range(200):
            import io

            buffer = io.BytesIO()
            pixels = np.random.default_rng(i).integers(0, 255, (7, 6, 3), np.uint8)
            Image.fromarray(pixels).resize((178, 218)).save(buffer, "JPEG", quality=95)
            txn.put(f"None-{i:07d}".encode(), buffer.getvalue())
        txn.put(b"length", b"200")
    return folder


@pytest.mark.slow
def test_celeba_trains_is_killed_and_goes_on(celeba, tmp_path):
    run = tmp_path / "run"
    config = ["--config=configs/dbae_celeba.py", f"--workdir={run}", f"--data_dir={celeba}", *SMALL]
    config += ["--config.train.checkpoint_every=2"]
    process = command(*config, "--config.train.total_steps=100000", wait=False)
    deadline = time.time() + 300
    while not (run / "checkpoints" / "4" / "checksums.json").is_file() and time.time() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = max(int(p.parent.name) for p in (run / "checkpoints").glob("*/checksums.json"))  # what counts as whole

    code, output = command(*config, f"--config.train.total_steps={saved + 3}")
    assert code == 0, output
    assert f"Going on from the checkpoint of step {saved}." in output
    assert f"step {saved + 3}/{saved + 3}  loss" in output
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, saved + 4))
    assert list(run.glob("previews/*/reconstruct/grid.png"))
    assert list((run / "tensorboard").glob("events*"))

    code, output = command(f"--workdir={run}", f"--data_dir={celeba}", "--task=reconstruct")
    assert code == 0, output
    assert json.loads((run / "reconstruct" / "metrics.json").read_text())["images"] == 8


def test_errors_are_one_line_and_exit_code_2(tmp_path, capsys):
    """In process: the same `run` that the command calls."""
    empty = tmp_path / "empty"
    empty.mkdir()
    no_keys = tmp_path / "no_keys.lmdb"
    with lmdb.open(str(no_keys), map_size=2**20) as env, env.begin(write=True) as txn:
        txn.put(b"hello", b"world")
    broken = tmp_path / "broken.lmdb"
    with lmdb.open(str(broken), map_size=2**20) as env, env.begin(write=True) as txn:
        for i in range(20):
            txn.put(f"None-{i:07d}".encode(), b"not an image")
        txn.put(b"length", b"20")
    workdir = tmp_path / "run"
    train = ["--config=configs/dbae_celeba.py", f"--workdir={workdir}"]
    cases = [
        (["--config=configs/dbae_celba.py"], "Did you mean configs/dbae_celeba.py"),
        (["--config=configs/dbae_celeba.py:bridg=ve"], "Did you mean 'bridge'"),
        (["--config=configs/dbae_celeba.py:bridge=vee"], "'vee'"),
        ([*train, "--config.optim.lrr=1"], "Did you mean 'lr'"),
        ([*train, "--config.optim.lr=fast"], "expected float"),
        ([*train, "--config.optim"], "lacks a value"),
        ([*train, "--config.optim=3"], "is a section"),
        ([*train, "--confg=3"], "Unknown argument '--confg'"),
        ([*train, "--task=paint"], "Unknown task 'paint'"),
        (train, "--data_dir"),
        ([*train, f"--data_dir={tmp_path / 'nowhere'}"], "nowhere"),
        ([*train, f"--data_dir={empty}"], "empty"),
        ([*train, f"--data_dir={no_keys}"], "hello"),
        ([*train, f"--data_dir={broken}", *SMALL], "None-0"),
        ([*train, f"--data_dir={broken}", "--config.train.microbatch_size=100"], "does not divide by"),
        ([*train, f"--data_dir={broken}", "--config.mesh.data=5"], "mesh data=5"),
        ([*train, "--config.data.image_size=68"], "image_size 68"),
        ([*train, "--config.method.unet.mult=(1,1,1,1,1,1,1,1,1)"], "cannot be halved"),
        ([*train, "--config.method.dtype=float16"], "float16"),
        ([*train, "--config.method.outer_dtype=float16"], "config.method.outer_dtype"),
        ([f"--workdir={workdir}", "--task=reconstruct"], "No config.json"),
    ]
    for arguments, message in cases:
        with pytest.raises(SystemExit) as stop:
            main.run(arguments)
        captured = capsys.readouterr()
        assert stop.value.code == 2, arguments
        assert captured.err.count("\n") == 1 and captured.err.startswith("error: "), captured.err
        assert message in captured.err, (arguments, captured.err)
        assert not (workdir / "config.json").exists() or "None-0" in message


def test_a_run_with_another_model_is_not_overwritten(tiny_run, capsys):
    before = {p: p.stat().st_mtime_ns for p in pathlib.Path(tiny_run).rglob("*")}
    for arguments, message in [
        (["--config=configs/dbae_digits.py"], "method.encoder.attention"),
        (["--config.method.latent_dim=9"], "method.latent_dim=8"),
        (["--config.data.image_size=16"], "image_size=8"),
        (["--task=interpolate", "--config.method.bridge=ve"], "method.bridge='vp'"),
    ]:
        with pytest.raises(SystemExit) as stop:
            main.run([f"--workdir={tiny_run}", *arguments])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in pathlib.Path(tiny_run).rglob("*")} == before


def test_a_run_that_lacks_a_tasks_section_or_field_does_the_task_by_the_defaults(tiny_run, tmp_path):
    """As an earlier version wrote it, before there were counterfactuals and inversions."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config = json.loads((run / "config.json").read_text())
    del config["tasks"]["report"], config["tasks"]["interpolate"]["invert_steps"]
    (run / "config.json").write_text(json.dumps(config))
    for task in ("report", "interpolate"):
        main.run([f"--workdir={run}", f"--task={task}"])
    assert (run / "report" / "report.html").is_file()
    assert (run / "interpolate" / "strip.png").is_file()


@pytest.mark.parametrize("place", ["notes.txt", "notes.txt/run"])
@pytest.mark.parametrize("task", ["train", "inspect_data"])
def test_a_workdir_where_a_file_is_in_the_way_is_one_line(tmp_path, capsys, place, task):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={tmp_path / place}", "--config=configs/dbae_digits.py", f"--task={task}", *SMALL])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1, error
    assert str(tmp_path / place) in error and "--workdir" in error
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_home_and_environment_variables_are_put_into_every_path(tiny_run, tmp_path, monkeypatch, capsys):
    """A shell leaves both to the program in `--flag=~/...`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    flags, _ = main.parse([f"--{name}=~/{name}" for name in base.PATHS])
    assert {getattr(flags, name) for name in base.PATHS} == {tmp_path / name for name in base.PATHS}
    flags, _ = main.parse([f"--{name}=$PLACE/{name}" for name in base.PATHS])
    assert {getattr(flags, name) for name in base.PATHS} == {tmp_path / "place" / name for name in base.PATHS}

    shutil.copytree(tiny_run, tmp_path / "place" / "run")
    for place in ("~/place/run", "$PLACE/run"):
        main.run([f"--workdir={place}", "--task=report"])
        assert (tmp_path / "place" / "run" / "report" / "report.html").is_file()
        shutil.rmtree(tmp_path / "place" / "run" / "report")
    (tmp_path / "mine.py").write_text((ROOT / "configs" / "dbae_digits.py").read_text())
    main.run(["--config=~/mine.py", "--workdir=$PLACE/run2", "--task=inspect_data"])
    assert (tmp_path / "place" / "run2" / "inspect_data" / "metrics.json").is_file()

    run, files = "--workdir=~/place/run", "--config.tasks.evaluate."
    for arguments in (
        ["--config=~/none.py"],
        [run, "--task=evaluate", f"{files}generated=['~/none.npz']"],
        [run, "--task=evaluate", f"{files}reference=$HOME/none.zip", f"{files}reconstructions=~/none.npz"],
        [run, "--task=interpolate", "--config.tasks.interpolate.first=~/none.png"],
        ["--workdir=~/new", "--config.train.init_from=$PLACE/../none.py"],
    ):
        with pytest.raises(SystemExit):
            main.run(arguments)
        assert f"{tmp_path}/none" in os.path.normpath(capsys.readouterr().err), arguments


def test_help_lists_the_flags_and_the_tasks(capsys):
    with pytest.raises(SystemExit) as stop:
        main.run(["--help"])
    words = set(re.split(r"[\s,]+", capsys.readouterr().out))
    files = {path.stem for path in (ROOT / "diffrep_jax" / "tasks").glob("[!_]*.py")} - {"base"}
    assert not stop.value.code and len(files) >= 13
    assert words >= {"train", *files, "--workdir", "--config", *(f"--{name}" for name in base.PATHS)}


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    """Each reads its half of the batch; the losses, the previews' numbers and the one checkpoint are those of one."""
    arguments = [*SMALL, "--config.train.total_steps=2", "--config.data.flip=True"]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    cluster = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    both = [
        command(
            *arguments, "--multihost", f"--workdir={tmp_path / 'two'}", wait=False, JAX_PROCESS_ID=str(i), **cluster
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    code, output = command(*arguments, f"--workdir={tmp_path / 'one'}")
    assert code == 0, output
    assert "step 2/2" in outputs[0] and "step 2/2" not in outputs[1]  # one speaks for all
    lines = {run: (tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")}
    assert len(lines["one"]) == len(lines["two"]) >= 3
    for one, two in zip(*(map(json.loads, lines[run]) for run in ("one", "two")), strict=True):
        for numbers in (one, two):
            for speed in ("images_per_second", "images_per_second_per_device"):
                numbers.pop(speed, None)
            numbers.pop("time")
        assert one == pytest.approx(two, rel=1e-4)
    assert sorted(p.name for p in (tmp_path / "two" / "checkpoints").iterdir()) == ["2"]


def test_overrides_take_both_spellings():
    assert main.split_overrides(["--config.a.b=1", "--config.c", "x=2"]) == {"a.b": "1", "c": "x=2"}
    assert main.split_overrides(["--config.a=1", "--config.a=2"]) == {"a": "2"}  # as in most command lines
