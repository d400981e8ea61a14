"""DiffAE's official files become runs by `--task=import`: shape from the tensors, weights to the bit, no code run."""

import jax
import numpy as np
import pytest

from diffrep_jax import data
from diffrep_jax.methods.base import build
from diffrep_jax.port import files
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.sharding import make_mesh
from launch import main
from tests.diffae_official import EXPECTED, SECTIONS, lightning, loaded, tensors_of
from tests.torch_files import Call, Name, write

CALLBACK = Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")


def import_file(path, config, workdir, *more):
    main.run(["--task=import", f"--checkpoint={path}", f"--config=configs/{config}.py", f"--workdir={workdir}", *more])


def last_ckpt(folder, state_dict, **extra):
    callbacks = {CALLBACK: {"best_model_score": None}}
    return write(
        folder / "last.ckpt", {"global_step": 562_500, "state_dict": state_dict, "callbacks": callbacks} | extra
    )


def averaged(run):
    """(the method, its variables) of a run."""
    method = build(run_config.load(run).method)
    return method, load_variables(run, method, make_mesh(devices=jax.local_devices()))


@pytest.mark.slow
def test_one_file_of_a_prior_makes_two_runs(tmp_path, caplog):
    path = last_ckpt(tmp_path, lightning("latent_prior"))
    import_file(path, "diffae_celeba", tmp_path / "autoencoder", "--config.method.dtype=float32")
    method, variables = averaged(tmp_path / "autoencoder")
    section = run_config.load(tmp_path / "autoencoder").method.to_dict()
    assert section == SECTIONS["diffae"] | {"outer_dtype": "float32"} and section["unet"]["mult"] == (1, 1, 2)
    jax.tree.map(np.testing.assert_array_equal, variables, loaded("diffae")[1])
    assert "nothing was run: pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint" in caplog.text

    import_file(path, "latent_prior_celeba", tmp_path / "prior")
    method, variables = averaged(tmp_path / "prior")
    assert method == loaded("latent_prior")[0]
    jax.tree.map(np.testing.assert_array_equal, variables["params"], loaded("latent_prior")[1]["params"])
    statistics = method.statistics(variables)
    np.testing.assert_array_equal(statistics["mean"], EXPECTED["latent_mean"])
    np.testing.assert_array_equal(statistics["std"], EXPECTED["latent_std"])


@pytest.mark.torch
@pytest.mark.slow
def test_a_prior_goes_out_with_its_auto_encoder_and_comes_back(tmp_path):
    pytest.importorskip("torch")
    path = last_ckpt(tmp_path, lightning("latent_prior"))
    import_file(path, "diffae_celeba", tmp_path / "autoencoder", "--config.method.dtype=float32")
    import_file(path, "latent_prior_celeba", tmp_path / "prior")
    more = ["--config.tasks.export.layout=diffae", f"--config.tasks.export.autoencoder={tmp_path / 'autoencoder'}"]
    main.run(["--task=export", f"--workdir={tmp_path / 'prior'}", *more])
    (exported,) = (tmp_path / "prior" / "export").glob("*.pt")
    given = {name: x for name, x in lightning("latent_prior").items() if not name.startswith(("model.", "x_T"))}
    written = files.read_parts(exported).parts["state_dict"]
    assert all(np.array_equal(written[name], x) for name, x in given.items())
    import_file(exported, "latent_prior_celeba", tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, averaged(tmp_path / "again")[1], averaged(tmp_path / "prior")[1])


@pytest.mark.slow
def test_a_plain_ddim_takes_a_config_of_ddpm(tmp_path):
    path = last_ckpt(tmp_path, {f"ema_model.{name}": x for name, x in tensors_of("ddpm").items()})
    import_file(path, "ddpm_celeba", tmp_path / "run", "--config.method.dtype=float32")
    method, variables = averaged(tmp_path / "run")
    assert method == loaded("ddpm")[0]
    jax.tree.map(np.testing.assert_array_equal, variables, loaded("ddpm")[1])


def refused(capsys, path, config, workdir):
    with pytest.raises(SystemExit) as stop:
        import_file(path, config, workdir)
    assert stop.value.code == 2 and not workdir.exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_crafted_file_runs_nothing(tmp_path, capsys):
    ran = tmp_path / "ran"
    call = Call(Name("os", "system"), (f"touch {ran}",))
    path = last_ckpt(tmp_path, {"ema_model.out.0.weight": call})
    line = refused(capsys, path, "diffae_celeba", tmp_path / "run")
    assert "something that os.system makes, which was not run" in line and not ran.exists()


def test_files_of_another_method_are_refused_in_one_line(tmp_path, capsys):
    path = last_ckpt(tmp_path, {"ema_model.layers.0.weight": np.zeros((2, 3), np.float32)})
    line = refused(capsys, path, "diffae_celeba", tmp_path / "run")
    assert "is not an auto-encoder of DiffAE: looked for 'time_embed.time_embed.0.weight' among 1 names" in line
    line = refused(capsys, path, "latent_prior_celeba", tmp_path / "run")
    assert "lacks ema_model.latent_net.; it holds state_dict" in line


def test_latent_pkl_is_codes_for_a_prior(tmp_path, capsys):
    codes = np.random.default_rng(0).normal(size=(5, 512)).astype(np.float32)
    conds = {"conds": codes, "conds_mean": codes.mean(0), "conds_std": codes.std(0, ddof=1)}
    import_file(write(tmp_path / "latent.pkl", conds), "diffae_ffhq", tmp_path / "run")
    dataset = data.open_dataset("codes", split="all", image_size=1, channels=512, data_dir=tmp_path / "run" / "encode")
    np.testing.assert_array_equal([dataset[i]["image"][0, 0] for i in range(5)], codes)
    np.testing.assert_array_equal(dataset.statistics["std"], conds["conds_std"])
    assert "fingerprint" not in dataset.statistics
    wrong = write(tmp_path / "wrong.pkl", conds | {"conds_mean": codes.mean(0)[:7]})
    assert "conds_mean (7,), conds_std (512,), not conds (n, d) with" in refused(
        capsys, wrong, "diffae_ffhq", tmp_path / "other"
    )
