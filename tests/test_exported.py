"""An export is a small run: it opens as it stands, in 16 bits too, with a card of what was measured."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

import diffrep_jax
from benchmarks import pretrained
from diffrep_jax.errors import UserError
from diffrep_jax.port import own
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from launch import main
from tests.tiny import start, tiny_config

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)


def export(run, model, folder, **settings):
    """The folder of an export of `run`; its tasks' numbers are those in `folder`."""
    shutil.copytree(run, folder)
    base.build("export", settings, {}).run(model, Run.at(folder, tiny_config()))
    return folder / "export"


@pytest.fixture(scope="module")
def exports(tiny_run, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {dtype: export(tiny_run, tiny_model, folder / dtype, dtype=dtype) for dtype in ("float32", "bfloat16")}


def weights(folder):
    (path,) = folder.glob("*.safetensors")
    return path


def test_an_export_opens_as_the_run_that_it_is_of(exports, tiny_model, tmp_path):
    """Moved to another place, without the .pt file."""
    for path in (weights(exports["float32"]), exports["float32"] / "config.json"):
        shutil.copy(path, tmp_path)
    model = diffrep_jax.load(tmp_path)
    np.testing.assert_array_equal(model.encode(IMAGES), tiny_model.encode(IMAGES))
    again = [m.decode(m.encode(IMAGES)) for m in (model, tiny_model)]
    np.testing.assert_array_equal(*again)
    main.main([f"--workdir={tmp_path}", "--task=reconstruct"])
    assert json.loads((tmp_path / "reconstruct" / "metrics.json").read_text())["images"] == 10


def test_weights_of_another_step_go_when_the_new_ones_are_there(tiny_run, tiny_model, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    older = [run / "export" / f"ema_0.5_0000002{suffix}" for suffix in (".safetensors", ".pt")]
    older[0].parent.mkdir()
    for path in older:
        path.write_bytes(b"old")

    def full(tensors, path):
        raise OSError(28, "No space left on device")

    task = base.build("export", {}, {})
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("safetensors.numpy.save_file", full)
        task.run(tiny_model, Run.at(run, tiny_config()))
    assert sorted(run.joinpath("export").iterdir()) == sorted(older)
    task.run(tiny_model, Run.at(run, tiny_config()))
    assert weights(run / "export").name.endswith("_0000004.safetensors") and not any(path.exists() for path in older)


def test_16_bits_are_half_the_size_and_decode_within_their_rounding(exports, tiny_model):
    whole, half = (load_file(weights(exports[dtype])) for dtype in ("float32", "bfloat16"))
    assert whole.keys() == half.keys()
    for name, value in half.items():
        if name.startswith("params/"):
            assert value.dtype == ml_dtypes.bfloat16
            np.testing.assert_allclose(value.astype(np.float32), whole[name], rtol=2**-8)
        else:
            np.testing.assert_array_equal(value, whole[name])
    saved = sum(value.nbytes for name, value in whole.items() if name.startswith("params/")) / 2
    sizes = [weights(exports[dtype]).stat().st_size for dtype in ("float32", "bfloat16")]
    assert abs(sizes[0] - saved - sizes[1]) < 500  # the headers differ by the names of the types
    model = diffrep_jax.load(exports["bfloat16"])
    codes = tiny_model.encode(IMAGES)
    assert np.abs(model.encode(IMAGES) - codes).max() < 0.05 * np.abs(codes).max()
    again = [m.decode(m.encode(IMAGES)) for m in (model, tiny_model)]
    assert np.sqrt(np.mean((again[0] - again[1]) ** 2)) < 0.05


def test_buffers_keep_all_of_their_bits():
    tensors = {"params/mlp/kernel": np.float32([np.pi]), "batch_stats/fingerprint": np.float32([np.pi])}
    narrowed = own.narrowed(tensors, np.float16)
    assert narrowed["params/mlp/kernel"] == np.float16(np.pi)
    assert narrowed["batch_stats/fingerprint"].dtype == np.float32


def test_what_an_export_cannot_be_is_refused(exports, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(exports["bfloat16"], folder)
    with pytest.raises(UserError, match="has the averaged weights alone"):
        diffrep_jax.load(folder, weights="live")
    with pytest.raises(UserError, match="holds exported weights, no optimizer: make a run of them with --task=import"):
        start(tiny_config(), folder)
    assert not (folder / "checkpoints").exists()
    shutil.copy(weights(folder), folder / "other.safetensors")
    with pytest.raises(UserError, match="has ema_0.99_0000004.safetensors, other.safetensors: keep the one"):
        diffrep_jax.load(folder)
    for path in folder.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-9]) if path.name.startswith("ema") else path.unlink()
    with pytest.raises(UserError, match="is damaged, cut short"):
        diffrep_jax.load(folder)
    weights(folder).unlink()
    with pytest.raises(UserError, match="No checkpoints folder"):
        diffrep_jax.load(folder)
    with pytest.raises(UserError, match="Unknown dtype 'int8' in config.tasks.export.dtype. Known: bfloat16, float16"):
        base.build("export", {"dtype": "int8"}, {})


def test_the_card_says_what_was_measured_and_how_it_opens(tiny_run, tiny_model, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config = tiny_config()
    for name, changed in {"reconstruct": {}, "probe": {"epochs": 2}, "export": {}}.items():
        base.build(name, {**config.tasks[name], **changed}, {}).run(tiny_model, Run.at(run, config))
    card = (run / "export" / "README.md").read_text()
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "diffrep_jax"
    assert text.split("\n")[1] == "# DBAE on digits, 8 x 8"
    assert f'diffrep_jax.load("{run / "export"}")' in card
    numbers = json.loads((run / "reconstruct" / "metrics.json").read_text())
    assert f"| mse | {numbers['mse']:.4g} |" in card and f"| ssim | {numbers['ssim']:.4g} |" in card
    assert "| bytes | " + f"{weights(run / 'export').stat().st_size:,} |" in card
    assert "probe" in card and "Starts of the training" in card
    assert "launch/main.py" not in card and "![" not in card


def test_pretrained_weights_are_made_by_one_command(tiny_run, tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "pretrained" / "digits"
    shutil.copytree(tiny_run, run)
    config = json.loads((run / "config.json").read_text())
    config["tasks"]["probe"]["epochs"] = 2
    (run / "config.json").write_text(json.dumps(config))
    pretrained.main([f"--workdir={run}", f"--out={out}"])
    assert {path.name for path in out.iterdir()} == {weights(out).name, "config.json", "README.md", "probe"}
    assert {path.suffix for path in (out / "probe").iterdir()} == {".npz"}
    measured = json.loads((run / "pretrained" / "reconstruct" / "metrics.json").read_text())
    card = (out / "README.md").read_text()
    assert "at step 4" in card and f"| reconstruct: mse | {measured['mse']:.4g} | " in card
    assert "8 principal components" in card and "| probe: classes_ap | " in card
    encoded = {path: diffrep_jax.load(path).encode(IMAGES) for path in (out, run)}
    assert np.abs(encoded[out] - encoded[run]).max() < 0.05 * np.abs(encoded[run]).max()
    monkeypatch.setattr(pretrained, "LIMIT", 1000)
    with pytest.raises(UserError, match="bytes, more than 1,000: use a smaller network"):
        pretrained.main([f"--workdir={run}", f"--out={out}"])


def test_components_are_those_of_the_covariance():
    """Of images that vary along two directions, two components give all back, one the larger part."""
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.normal(size=(16, 2)))[0].T
    flat = 0.5 + rng.normal(size=(4000, 2)) * [0.1, 0.03] @ directions
    images = flat.reshape(4000, 4, 4, 1)
    errors = []
    for dimensions in (1, 2):
        components = pretrained.Components(images, dimensions)
        codes = components.encode(images * 255.0)
        np.testing.assert_allclose(codes.std(0), 1, rtol=0.01)
        errors.append(np.mean((components.decode(codes, (4, 4, 1)) - images) ** 2))
    assert errors[1] < 1e-10
    np.testing.assert_allclose(errors[0], 0.03**2 / 16, rtol=0.2)


def test_an_export_is_not_exported_again(exports, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(exports["float32"], folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(SystemExit):
        main.run([f"--workdir={folder}", "--task=export"])
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder} is what --task=export has written") and "--task=import" in said
    assert said.count("\n") == 1 and sorted(folder.rglob("*")) == before
