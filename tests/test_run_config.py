"""A run's config.json and what makes a run one: it comes back equal, opens across versions, is refused by name."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import diffrep_jax
from diffrep_jax import config as configs
from diffrep_jax import data, sections
from diffrep_jax.methods.base import build
from diffrep_jax.runs import checkpoint, lock, provenance
from diffrep_jax.runs import config as run_config
from launch import main
from tests.test_config import load, raises
from tests.tiny import start, tiny_config

EARLIER = Path(__file__).parent / "earlier" / "dbae_digits.json"  # as the version before `sampling` wrote it


@pytest.fixture
def digits():
    return load("dbae_digits")


@pytest.mark.parametrize("spec", ["dbae_digits", "dbae_celeba:bridge=ve,encoder=stochastic", "dbae_ffhq"])
def test_a_saved_config_comes_back_equal(tmp_path, spec):
    config = load(spec)
    run_config.save(config, tmp_path)
    loaded = run_config.load(tmp_path)
    assert loaded.to_dict() == config.to_dict() and loaded.is_locked
    assert isinstance(loaded.method.unet.mult, tuple) and type(loaded.optim.lr) is float
    assert build(loaded.method) == build(config.method)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    configs.override(loaded, {"method.unet.mult": "(2,)", "optim.lr": "1"})  # types survive as well
    assert (loaded.method.unet.mult, loaded.optim.lr) == ((2,), 1.0)


def test_saving_overwrites_what_was_there(tmp_path, digits):
    run_config.save(digits, tmp_path)
    configs.override(digits, {"seed": "5"})
    run_config.save(digits, tmp_path)
    assert run_config.load(tmp_path).seed == 5


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with raises("No config.json", str(tmp_path), "--task=train"):
        run_config.load(tmp_path)
    for text in ("{", "", "[1, 2]", "3", "[" * 100_000, '{"method": {}}'):
        (tmp_path / "config.json").write_text(text)
        with raises("config.json", "cannot be read" if text[:2] in ("{", "", "[[") else "lacks", "--workdir"):
            run_config.load(tmp_path)


def test_a_run_is_continued_with_the_same_model_only(digits):
    saved = ConfigDict(digits.to_dict())
    changeable = {f"data.{name}" for name in data.Settings.changeable}
    changeable |= {f"method.{name}" for name in build(digits.method).changeable}

    def check(config, also=()):
        run_config.check_same_model(config, saved, "runs/x", changeable | set(also))

    check(digits)
    # what neither shapes nor what was learned depends on may change
    free = {"optim.lr": "1e-4", "train.total_steps": "9", "data.workers": "2", "method.dtype": "bfloat16"}
    free |= {"data.worker_kind": "process", "data.max_bad_fraction": "0.01", "method.unet.dropout": "0.2"}
    configs.override(digits, free | {"method.remat": "True"})
    check(digits)
    for field, text, parts in (
        ("method.latent_dim", "32", ["method.latent_dim=64", "32", "--workdir"]),
        ("method.unet.mult", "(1, 2, 4)", ["method.unet.mult=(1, 2)", "(1, 2, 4)"]),
        ("data.name", "ffhq", ["data.name='digits'", "'ffhq'"]),
    ):
        changed = ConfigDict(digits.to_dict())
        configs.override(changed, {field: text})
        with raises("runs/x", *parts):
            check(changed)
    # other data, if they were named on the command line
    configs.override(digits, {"data.name": "folder", "data.flip": "True"})
    check(digits, ["data.name", "data.flip"])
    configs.override(digits, {"data.image_size": "8"})
    with raises("image_size=16", "has 8"):
        check(digits, ["data.name", "data.flip"])


# Runs of earlier versions


@pytest.fixture(scope="module")
def earlier_run(tiny_run, tmp_path_factory):
    """The tiny run as an earlier version left it: its config.json, no checksums."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "config.json").write_text(EARLIER.read_text())
    (folder / "checkpoints" / "4" / "checksums.json").unlink()  # there were none
    return folder


def test_the_earlier_forms_recipe_is_that_of_its_reconstructions():
    old = json.loads(EARLIER.read_text())
    config = sections.complete(run_config.load(_folder_of(old)))
    assert config.sampling.sampler == old["tasks"]["reconstruct"]["sampler"] == "heun"
    assert config.sampling.steps == old["tasks"]["reconstruct"]["steps"]
    assert config.tasks.evaluate.without == ("lpips", "fid")  # it said False of both
    assert "sampler" not in config.tasks.reconstruct and config.tasks.reconstruct.num_images == 10
    assert build(config.method) == build(tiny_config().method)


def _folder_of(content):
    import tempfile

    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def test_a_run_of_an_earlier_version_trains_on_bitwise_and_reconstructs(earlier_run, tiny_run, tmp_path):
    for name, source in (("ours", tiny_run), ("theirs", earlier_run)):
        shutil.copytree(source, tmp_path / name)
        main.run([f"--workdir={tmp_path / name}", "--config.train.total_steps=6"])
    states = []
    for name in ("ours", "theirs"):
        with checkpoint.opened(tmp_path / name) as checkpoints:
            assert checkpoints.latest_step() == 6
        states.append(diffrep_jax.load(tmp_path / name).variables)
    jax.tree.map(np.testing.assert_array_equal, *states)
    main.run([f"--workdir={tmp_path / 'theirs'}", "--task=reconstruct"])
    numbers = json.loads((tmp_path / "theirs" / "reconstruct" / "metrics.json").read_text())
    assert (numbers["sampler"], numbers["evaluations"]) == ("heun", 3)


@pytest.mark.parametrize("missing", ["train.max_minutes", "sampling.eta", "sampling", "tasks.report", "mesh.fsdp"])
def test_a_config_that_lacks_a_field_or_a_section_opens(missing):
    content = tiny_config().to_dict()
    *path, field = missing.split(".")
    section = content
    for name in path:
        section = section[name]
    del section[field]
    config = sections.complete(run_config.load(_folder_of(content)))
    sections.check(config)
    assert set(config) == set(tiny_config())


@pytest.mark.parametrize("field", ["trian", "train.batchsize", "sampling.stepps", "tasks.reconstruc", "data.splits"])
def test_an_unknown_field_is_refused_by_name(field, capsys):
    content = json.loads(json.dumps(tiny_config().to_dict()))
    *path, name = field.split(".")
    section = content
    for part in path:
        section = section[part]
    section[name] = {}
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={_folder_of(content)}", "--task=report"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and name in error and "Did you mean" in error and error.count("\n") == 1


# Damage, locks, changed settings


def _largest(folder, part="ema"):
    files = [path for path in (folder / part).rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.fixture
def two_checkpoints(tmp_path):
    """A folder with checkpoints 1 and 2 of one leaf, full of 1 and of 2."""
    with checkpoint.opened(tmp_path, 2, writer=True) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"ema": {"w": np.full(300, float(step), np.float32)}})
    return tmp_path


def _restored(folder):
    mesh = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = {"ema": {"w": jax.ShapeDtypeStruct((300,), np.float32, sharding=mesh)}}
    with checkpoint.opened(folder) as checkpoints:
        return float(checkpoints.restore(template)["ema"]["w"][0])


@pytest.mark.parametrize("harm", ["flip", "cut", "delete", "no checksums", "metadata"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(two_checkpoints, harm, caplog):
    assert _restored(two_checkpoints) == 2
    newest = two_checkpoints / "checkpoints" / "2"
    path = newest / "_CHECKPOINT_METADATA" if harm == "metadata" else _largest(newest)
    if harm == "no checksums":
        (newest / "checksums.json").unlink()
    elif harm == "delete":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 8
        path.write_bytes(content[:-3] if harm == "cut" else content)
    assert _restored(two_checkpoints) == 1
    assert "step 2" in caplog.text and "damaged" in caplog.text


def test_where_no_checkpoint_is_whole_it_says_so(two_checkpoints):
    for step in "12":
        path = _largest(two_checkpoints / "checkpoints" / step)
        path.write_bytes(path.read_bytes()[:-1])
    with raises("No whole checkpoint is left", str(two_checkpoints), "the newest, 2"):
        _restored(two_checkpoints)


def test_a_run_is_locked_by_who_trains_it(tmp_path):
    with lock.held(tmp_path):
        with raises(str(tmp_path), f"process {__import__('os').getpid()}", "--force-unlock"), lock.held(tmp_path):
            pass
        with lock.held(tmp_path, force=True):
            pass
    with lock.held(tmp_path):  # it has ended with the context
        pass
    assert not (tmp_path / ".lock").exists()


def test_who_lost_the_lock_leaves_it_to_who_has_taken_it(tmp_path):
    with contextlib.ExitStack() as taker:
        with lock.held(tmp_path):
            taker.enter_context(lock.held(tmp_path, force=True))
        with raises("is being trained by process"), lock.held(tmp_path):
            pass
    assert not (tmp_path / ".lock").exists()


def test_a_lock_that_a_killed_process_left_holds_nobody_up(tmp_path):
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "yesterday"}))
    with lock.held(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["since"] != "yesterday"


def test_settings_that_change_on_resume_are_logged_and_kept(tmp_path, caplog):
    start(tiny_config(total_steps=1), tmp_path)
    config = tiny_config(total_steps=2, keep_last=3).unlock()
    config.data.max_bad_fraction = 0.5
    start(config.lock(), tmp_path)
    changed = provenance.starts(tmp_path)[-1]["changed"]
    assert changed == {"data.max_bad_fraction": [0.001, 0.5], "train.keep_last": [1, 3], "train.total_steps": [1, 2]}
    assert "From step 1 on train.keep_last is 3, it was 1." in caplog.text


def test_a_history_without_its_checkpoints_is_kept(tmp_path, caplog):
    start(tiny_config(total_steps=1), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    start(tiny_config(total_steps=1), tmp_path)
    (old,) = tmp_path.glob("metrics_until_*.jsonl")
    assert json.loads(old.read_text())["step"] == 1 and old.name in caplog.text
