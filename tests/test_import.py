"""The tasks import and export: what goes out comes back to the bit, what is wrong is refused and leaves nothing."""

import json
import logging
import shutil
from importlib import import_module

import jax
import numpy as np
import pytest

import diffrep_jax
from diffrep_jax import sections
from diffrep_jax.methods.base import build
from diffrep_jax.port import dbae, files
from diffrep_jax.processes.bridge import VPBridge
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.checkpoint import opened
from diffrep_jax.runs.layout import Run
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.sharding import make_mesh
from diffrep_jax.tasks import base
from launch import main
from tests.tiny import start, tiny_config

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype(np.float32)


def command(*arguments):
    """The command in this process; None, or the line of the error and exit code 2."""
    main.run([str(argument) for argument in arguments])


def averaged(workdir):
    method = build(run_config.load(workdir).method)
    return load_variables(workdir, method, make_mesh(devices=jax.local_devices()))


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def exported(tiny_run):
    command(f"--workdir={tiny_run}", "--task=export")
    return tiny_run / "export"


@pytest.fixture(scope="module")
def official(tiny_run, tmp_path_factory):
    """The tiny run's weights as the authors would have published them."""
    section = run_config.load(tiny_run).method
    tensors = dbae.table(section).to_official(averaged(tiny_run))
    tensors |= dbae.unused(section, tensors)
    path = tmp_path_factory.mktemp("official") / "ema_0.9999_0001234.safetensors"
    files.write_safetensors(path, {f"module.{name}": value for name, value in tensors.items()})
    return path


@pytest.fixture(scope="module")
def imported(official, tiny_run, tmp_path_factory):
    """A run made of the official file, with the tiny config."""
    workdir = tmp_path_factory.mktemp("imported") / "run"
    config = tiny_config()
    base.build("import", config.tasks["import"], {"checkpoint": official}).run(None, Run.at(workdir, config))
    return workdir


# Out and in again


def test_an_export_comes_back_to_the_bit(tiny_run, exported, tmp_path):
    (path,) = exported.glob("*.safetensors")
    assert path.name == "ema_0.99_0000004.safetensors"
    command("--task=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'again'}")  # its config.json lies beside
    assert_same(averaged(tmp_path / "again"), averaged(tiny_run))
    assert run_config.load(tmp_path / "again") == sections.complete(run_config.load(tiny_run))
    with opened(tmp_path / "again") as checkpoints:
        assert checkpoints.latest_step() == 4


def test_an_official_file_becomes_a_run(tiny_run, imported):
    assert_same(averaged(imported), averaged(tiny_run))
    ours, theirs = diffrep_jax.load(tiny_run), diffrep_jax.load(imported)
    np.testing.assert_array_equal(ours.encode(IMAGES), theirs.encode(IMAGES))
    with opened(imported) as checkpoints:
        assert checkpoints.latest_step() == 1234
    live = diffrep_jax.load(imported, weights="live")
    np.testing.assert_array_equal(live.encode(IMAGES), theirs.encode(IMAGES))


def test_the_import_says_what_was_of_no_use(imported):
    numbers = json.loads((imported / "import" / "metrics.json").read_text())
    assert numbers["step"] == 1234 and numbers["chosen"] == {"sigma_data_end": 0.5}
    assert numbers["ignored"] and all(
        name.startswith("decoder.feat_256.") or name.endswith("num_batches_tracked") for name in numbers["ignored"]
    )


@pytest.mark.torch
def test_the_official_state_dict_comes_back(tiny_run, exported, tmp_path):
    torch = pytest.importorskip("torch")
    (path,) = exported.glob("*.pt")
    state = torch.load(path, weights_only=True)
    assert state["decoder.feat_8.2.num_batches_tracked"].dtype == torch.int64
    config = tmp_path / "config.json"
    config.write_text((exported / "config.json").read_text())
    path = path.rename(tmp_path / "model77.pt")
    command("--task=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'again'}")
    assert_same(averaged(tmp_path / "again"), averaged(tiny_run))


@pytest.mark.parametrize(
    ("name", "step"), [("ema_0.9999_1020000.pt", 1_020_000), ("model000500.pt", 500), ("last.safetensors", 0)]
)
def test_the_step_is_in_the_name(name, step, tmp_path):
    assert import_module("diffrep_jax.tasks.import").step_of(tmp_path / name) == step


# Going on from it


def test_training_goes_on_with_a_fresh_optimizer(imported, tmp_path, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(imported, workdir)
    config = tiny_config(total_steps=1236)
    with caplog.at_level(logging.INFO):
        state = start(config, workdir)
    assert "the optimizer starts afresh" in caplog.text and int(state.step) == 1236
    counts = [
        leaf for path, leaf in jax.tree.leaves_with_path(state.opt_state) if "count" in jax.tree_util.keystr(path)
    ]
    assert [int(count) for count in counts] == [2]
    # The buffers were carried over: two steps move the running variance by 19 % of what is new, not from 1.
    name = ("generator", "up8", "norm", "var")
    before, after = averaged(imported)["batch_stats"], state.batch_stats
    for key in name:
        before, after = before[key], after[key]
    fresh = 1 - 0.9**2
    assert np.all(after >= before * (1 - fresh) * (1 - 1e-6)) and not np.allclose(after, before)


def test_a_run_that_is_complete_says_so(imported, caplog):
    with caplog.at_level(logging.INFO):
        state = start(tiny_config(total_steps=1234), imported)
    assert "raise it to train on" in caplog.text and int(state.step) == 1234


# What the file does not tell


def test_the_evidence_is_the_error_of_the_skip_connection(imported):
    """With F = 0, D is c_skip x_t: written out here for x_t at T - 1e-4 and T - 1e-3 in float64."""
    method = build(tiny_config().method)
    variables = method.init(jax.random.key(0), {"image": IMAGES})  # the U-Net ends in zeros
    keys = jax.random.split(jax.random.key(1), len(IMAGES))
    found = method.candidate_errors(variables, IMAGES, keys)["sigma_data_end"]
    eps = np.stack([jax.random.normal(key, IMAGES.shape[1:]) for key in keys]).astype(np.float64)
    xT = np.float64(method.endpoint(variables, method.encode(variables, IMAGES)))
    expected = np.zeros((len(IMAGES), 2))
    for gap in (1e-4, 1e-3):
        t = 1 - gap
        rho2, rho2_T = np.expm1(0.1 * t + t**2), np.expm1(1.1)
        alpha, alpha_T = (1 + rho2) ** -0.5, (1 + rho2_T) ** -0.5
        a, b = alpha / alpha_T * rho2 / rho2_T, alpha * (1 - rho2 / rho2_T)
        c2 = alpha**2 * rho2 * (1 - rho2 / rho2_T)
        xt = a * xT + b * IMAGES + np.sqrt(c2) * eps
        for i, sT in enumerate((0.0, 0.5)):
            c_skip = b * 0.25 / (a**2 * sT**2 + b**2 * 0.25 + c2)
            expected[:, i] += ((c_skip * xt - IMAGES) ** 2).mean((1, 2, 3)) / 2
    np.testing.assert_allclose(found, expected, rtol=2e-3)  # float32 at t = T - 1e-4
    assert method.process == VPBridge()


@pytest.mark.parametrize(
    ("errors", "chosen", "words"),
    [
        ({0.0: 1.0, 0.5: 0.25}, 0.5, "as the config says"),
        ({0.0: 0.25, 0.5: 1.0}, 0.0, "not the config's 0.5"),
        ({0.0: 1.0, 0.5: 1.0}, 0.5, "do not tell"),
    ],
)
def test_the_lowest_error_decides(errors, chosen, words):
    decide = import_module("diffrep_jax.tasks.import").decide
    value, why = decide(errors, configured=0.5)
    assert value == chosen and words in why


def test_images_decide_and_the_choice_is_written(official, tmp_path):
    from PIL import Image

    folder = tmp_path / "my images"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (20, 24, 3), np.uint8)).save(folder / f"{i}.png")
    config = tiny_config()
    task = base.build("import", config.tasks["import"], {"checkpoint": official, "images": folder})
    task.run(None, Run.at(tmp_path / "run", config))
    numbers = json.loads((tmp_path / "run" / "import" / "metrics.json").read_text())
    errors = numbers["evidence"]["sigma_data_end"]
    best = float(min(errors, key=errors.__getitem__))
    assert numbers["chosen"] == {"sigma_data_end": best}
    assert run_config.load(tmp_path / "run").method.sigma_data_end == best


# Refusals


def refused(capsys, workdir, *arguments):
    """The one line of the error; nothing may have been written."""
    before = sorted(workdir.rglob("*")) if workdir.exists() else None
    with pytest.raises(SystemExit) as stop:
        command("--task=import", f"--workdir={workdir}", *arguments)
    assert stop.value.code == 2
    assert (sorted(workdir.rglob("*")) if workdir.exists() else None) == before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


CELEBA = "--config=configs/dbae_celeba.py"


def test_a_file_must_be_named(tmp_path, capsys):
    assert "add --checkpoint=FILE" in refused(capsys, tmp_path / "run", CELEBA)


def test_a_config_must_be_named(official, tmp_path, capsys):
    assert "add --config" in refused(capsys, tmp_path / "run", f"--checkpoint={official}")


def test_a_run_is_not_overwritten(official, imported, capsys):
    line = refused(capsys, imported, f"--checkpoint={official}")
    assert "holds a run already" in line and str(imported) in line


def test_another_model_is_named_with_both_values(official, tmp_path, capsys):
    line = refused(capsys, tmp_path / "run", CELEBA, f"--checkpoint={official}")
    assert "image_size=8" in line and "config.method.image_size is 64" in line


def test_a_truncated_file_is_refused(official, tmp_path, capsys):
    path = tmp_path / "ema_1.safetensors"
    path.write_bytes(official.read_bytes()[:-100])
    line = refused(capsys, tmp_path / "run", CELEBA, f"--checkpoint={path}")
    assert "cut short" in line and str(path) in line


def test_unknown_and_missing_names_are_listed(official, tmp_path, capsys, exported):
    tensors = files.read(official)
    tensors["encoder.out.0.offset"] = tensors.pop("encoder.out.0.bias")
    path = tmp_path / "ema_1.safetensors"
    files.write_safetensors(path, tensors)
    (tmp_path / "config.json").write_text((exported / "config.json").read_text())
    line = refused(capsys, tmp_path / "run", f"--checkpoint={path}")
    assert "encoder.out.0.offset" in line and "params/encoder/norm_out/bias" in line


def test_an_export_of_another_model_is_refused(exported, tmp_path, capsys):
    (path,) = exported.glob("*.safetensors")
    line = refused(capsys, tmp_path / "run", CELEBA, f"--checkpoint={path}")
    assert "does not fit the model: batch_stats/generator" in line


def test_a_checkpoint_is_of_no_use_to_training(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command(f"--workdir={tmp_path / 'run'}", "--checkpoint=x.pt")
    assert stop.value.code == 2 and "add --task=import" in capsys.readouterr().err
