"""Official checkpoints of the second family: their parts, and runs made of them."""

import json
import logging

import jax
import numpy as np
import pytest

import diffrep_jax
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.port import ddpm, files, latent_prior, parts, pdae
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.checkpoint import opened
from diffrep_jax.runs.weights import load_variables
from diffrep_jax.sharding import make_mesh
from diffrep_jax.train.init_from import networks_of
from launch import main
from tests.official import DITI_YML, changed, official_tree, tensors, write
from tests.test_port_pdae import EXPECTED, SECTIONS, X0, autoencoder_tensors, error, shapes_of

UNET = SECTIONS["ddpm"]["unet"]

# The parts


AVERAGED, LIVE = {"w": np.ones(2, np.float32)}, {"w": np.zeros(2, np.float32)}
BOTH = {"encoder": LIVE, "ema_encoder": AVERAGED, "decoder": LIVE, "ema_decoder": AVERAGED, "ssl_model": LIVE}


def test_averages_are_taken_unless_the_others_are_asked_for(caplog):
    caplog.set_level(logging.INFO)
    for weights, value, names in (("ema", 1, ["ema_encoder", "ema_decoder"]), ("live", 0, ["encoder", "decoder"])):
        out, chosen = parts.choose(files.Contents(BOTH), pdae.PARTS, weights, "x.pt")
        assert {name: x[0] for name, x in out.items()} == {"encoder.w": value, "decoder.w": value}
        assert chosen == names and f"x.pt: the weights are those of {', '.join(names)}." in caplog.text


def test_without_averages_the_others_are_taken_and_the_log_says_so(caplog):
    """So do the checkpoints of the latent prior hold the auto-encoder."""
    contents = files.Contents({"encoder": LIVE, "decoder": LIVE, "ema_latent_denoise_fn": AVERAGED})
    out, chosen = parts.choose(contents, pdae.PARTS, "ema", "x.pt")
    assert chosen == ["encoder", "decoder"] and out.keys() == {"encoder.w", "decoder.w"}
    assert "x.pt has no averaged weights: encoder, decoder are used." in caplog.text


@pytest.mark.parametrize(
    ("held", "source", "weights", "says"),
    [
        (
            {k: x for k, x in BOTH.items() if k != "ema_decoder"},
            pdae,
            "ema",
            "x.pt lacks ema_decoder; it holds encoder",
        ),
        ({"ema_encoder": AVERAGED, "ema_decoder": AVERAGED}, pdae, "live", "x.pt lacks encoder, decoder"),
        (BOTH, ddpm, "ema", "x.pt lacks ema_denoise_fn; it holds encoder, ema_encoder.*Is the config"),
        ({"": LIVE}, pdae, "live", "one plain state dict: .*weights=live is of no use"),
    ],
)
def test_missing_parts_are_named(held, source, weights, says):
    with pytest.raises(UserError, match=says):
        parts.choose(files.Contents(held), source.PARTS, weights, "x.pt")


@pytest.mark.parametrize("source, part", [(pdae, "encoder"), (ddpm, "denoise_fn"), (latent_prior, "latent_denoise_fn")])
def test_what_is_nested_is_chosen_back(source, part):
    given = {f"{prefix}a.weight": np.full(1, i) for i, prefix in enumerate(source.PARTS.values())}
    nested = parts.nest(given, source.PARTS, 7)
    assert nested["step"] == 7 and nested[part] is nested[f"ema_{part}"]
    held = {name: value for name, value in nested.items() if name != "step"}
    assert parts.choose(files.Contents(held), source.PARTS, "ema", "x.pt")[0] == given


# Runs


def command(*arguments):
    main.run([str(argument) for argument in arguments])


def refused(capsys, workdir, *arguments):
    """The one line of the error; nothing may have been written."""
    with pytest.raises(SystemExit) as stop:
        command("--task=import", f"--workdir={workdir}", *arguments)
    assert stop.value.code == 2 and not workdir.exists()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def averaged(workdir, params="ema"):
    method = build(run_config.load(workdir).method)
    return load_variables(workdir, method, make_mesh(devices=jax.local_devices()), params)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


FLOAT32 = "--config.method.dtype=float32"


def test_a_flat_file_without_torch_takes_the_config_yml_too(tmp_path):
    path = official_tree(tmp_path, DITI_YML).with_suffix(".safetensors")
    files.write_safetensors(path, autoencoder_tensors())
    run, config = tmp_path / "run", "--config=configs/diti_celeba.py:mode=dual"
    command("--task=import", f"--checkpoint={path}", config, f"--workdir={run}", FLOAT32)
    assert build(run_config.load(run).method) == build(SECTIONS["diti"])
    ours = pdae.table(SECTIONS["diti"]).to_official(averaged(run))
    assert all(np.array_equal(ours[name], x) for name, x in autoencoder_tensors().items())


@pytest.mark.torch
class TestRuns:
    @pytest.fixture(scope="class", autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.fixture(scope="class")
    def tree(self, tmp_path_factory, torch):
        """The golden networks as DiTi's and the base's folders hold them; what is not the average is zero."""
        folder = tmp_path_factory.mktemp("official")
        path = official_tree(folder, DITI_YML)

        def state(part, factor=1.0, prefix=""):
            return {prefix + name: torch.from_numpy(x * np.float32(factor)) for name, x in tensors(part).items()}

        content = {
            "step": 296_875,
            "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 1e-4}]},
        }
        for part in ("encoder", "decoder"):
            content |= {part: state(part, 0, "module."), f"ema_{part}": state(part, 1, "_orig_mod.")}
        torch.save(content, path)
        base = {"denoise_fn": state("ddpm", 0), "ema_denoise_fn": state("ddpm"), "scaler": {}}
        torch.save(base, folder / "pre-trained-dpms" / "celeba64" / "checkpoint.pt")
        return folder

    @pytest.fixture(scope="class")
    def checkpoint(self, tree):
        return tree / "runs" / "celeba64" / "diti64" / "checkpoints" / "latest.pt"

    @pytest.fixture(scope="class")
    def run(self, checkpoint, tmp_path_factory):
        """The golden DiTi by a config of another shape and another plan."""
        run = tmp_path_factory.mktemp("imported") / "run"
        config = "--config=configs/diti_celeba.py:stages=balanced"
        command("--task=import", f"--checkpoint={checkpoint}", config, f"--workdir={run}", FLOAT32)
        return run

    def test_the_golden_diti_becomes_a_run(self, run):
        expected = pdae.table(SECTIONS["pdae"])
        variables = expected.to_variables(autoencoder_tensors(), shapes_of(build(SECTIONS["pdae"])), "x.pt")
        assert_same(averaged(run), variables)
        config = run_config.load(run)
        assert build(config.method) == build(SECTIONS["diti"])
        numbers = json.loads((run / "import" / "metrics.json").read_text())
        assert numbers["step"] == 296_875 and numbers["parts"] == ["ema_encoder", "ema_decoder"]
        assert numbers["config_yml"].endswith("diti64/config.yml") and numbers["ignored"] == []
        with opened(run) as checkpoints:
            assert checkpoints.latest_step() == 296_875

    def test_its_codes_are_the_golden_ones(self, run):
        with jax.default_matmul_precision("highest"):
            assert error(diffrep_jax.load(run).encode(X0), EXPECTED["z"]) < 1e-5

    def test_it_goes_out_and_in_again_to_the_bit(self, torch, run, tmp_path):
        command(f"--workdir={run}", "--task=export")
        (path,) = (run / "export").glob("*.pt")
        content = torch.load(path, weights_only=True)
        assert set(content) == {"step", "encoder", "ema_encoder", "decoder", "ema_decoder"}
        assert content["step"] == 296_875
        for part in ("encoder", "decoder"):
            given = tensors(part)
            assert content[f"ema_{part}"].keys() == given.keys()
            assert all(np.array_equal(content[f"ema_{part}"][name].numpy(), x) for name, x in given.items())
        command("--task=import", f"--checkpoint={path}", f"--workdir={tmp_path / 'again'}")
        assert_same(averaged(tmp_path / "again"), averaged(run))
        assert run_config.load(tmp_path / "again") == run_config.load(run)

    def test_the_weights_that_are_no_average_are_there_if_asked_for(self, checkpoint, tmp_path):
        live = "--config.tasks.import.weights=live"
        arguments = ["--config=configs/diti_celeba.py", FLOAT32, live, f"--workdir={tmp_path / 'run'}"]
        command("--task=import", f"--checkpoint={checkpoint}", *arguments)
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(averaged(tmp_path / "run")))

    def test_the_golden_base_becomes_a_run_that_others_start_from(self, tree, tmp_path):
        path = tree / "pre-trained-dpms" / "celeba64" / "checkpoint.pt"
        run = tmp_path / "base"
        command("--task=import", f"--checkpoint={path}", "--config=configs/ddpm_celeba.py", f"--workdir={run}", FLOAT32)
        variables = ddpm.table(SECTIONS["ddpm"]).to_variables(
            tensors("ddpm"), shapes_of(build(SECTIONS["ddpm"])), "x.pt"
        )
        assert_same(averaged(run), variables)
        assert build(run_config.load(run).method) == build(SECTIONS["ddpm"])
        method = build(SECTIONS["pdae"])
        networks = networks_of(str(run), method, make_mesh(devices=jax.local_devices()))
        assert_same(networks["unet"], variables["params"]["unet"])

    def test_the_golden_latent_prior_becomes_a_run(self, torch, tmp_path):
        network = {"input_channel": 512, "model_channel": 256, "num_layers": 4, "time_emb_channel": 64}
        path = write(
            tmp_path / "config.yml", {"latent_denoise_fn_config": network | {"use_norm": True, "dropout": 0.0}}
        )
        state = {name: torch.from_numpy(x) for name, x in tensors("latent").items()}
        torch.save({"encoder": {"w": torch.ones(1)}, "ema_latent_denoise_fn": state, "step": 5}, path.with_name("a.pt"))
        run, config = tmp_path / "run", "--config=configs/latent_prior_celeba.py"
        command("--task=import", f"--checkpoint={path.with_name('a.pt')}", config, f"--workdir={run}")
        section = run_config.load(run).method
        template = averaged(run)
        assert_same(template, latent_prior.table(section).to_variables(tensors("latent"), template, "a.pt"))
        command("--task=export", f"--workdir={run}")
        (path,) = (run / "export").glob("*.pt")
        assert torch.load(path, weights_only=True)["ema_latent_denoise_fn"].keys() == state.keys()

    def test_a_plain_state_dict_needs_no_parts(self, torch, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        path = tmp_path / "model_7.pt"
        torch.save({name: torch.from_numpy(x) for name, x in tensors("ddpm").items()}, path)
        shape = [f"--config.method.unet.{name}={value}" for name, value in UNET.items()]
        command(
            "--config=configs/ddpm_celeba.py",
            "--task=import",
            f"--checkpoint={path}",
            f"--workdir={tmp_path / 'run'}",
            FLOAT32,
            *shape,
        )
        assert "unet.heads, unet.head_dim are the config's, no file tells them" in caplog.text
        with opened(tmp_path / "run") as checkpoints:
            assert checkpoints.latest_step() == 7

    def test_what_does_not_fit_is_refused(self, torch, checkpoint, tree, tmp_path, capsys):
        lines = []
        for config in ("ddpm_celeba", "pdae_celeba", "dbae_celeba"):
            arguments = f"--checkpoint={checkpoint}", f"--config=configs/{config}.py"
            lines.append(refused(capsys, tmp_path / "run", *arguments))
        assert "lacks ema_denoise_fn; it holds encoder, ema_encoder" in lines[0]
        assert "config.yml is of DiTi (ssl_config.k=64)" in lines[1]
        assert "holds encoder, ema_encoder, decoder, ema_decoder" in lines[2]

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (changed(DITI_YML, encoder_config__latent_dim=256, ssl_config=dict(k=64)), "has latent_dim=512, but"),
            (changed(DITI_YML, train_dataset_config__image_size=32), "does not fit the model; unknown in the file"),
            (changed(DITI_YML, encoder_config__model=None), "lacks encoder_config.model"),
            ("!!python/object/apply:os.getcwd []", "cannot be read as plain YAML"),
        ],
    )
    def test_a_config_yml_that_does_not_fit_is_refused(self, checkpoint, tmp_path, capsys, content, says):
        official_tree(tmp_path, content)
        path = tmp_path / "runs" / "celeba64" / "diti64" / "checkpoints" / "latest.pt"
        path.symlink_to(checkpoint)
        line = refused(capsys, tmp_path / "run", f"--checkpoint={path}", "--config=configs/diti_celeba.py")
        assert says in line

    def test_another_base_without_config_yml_is_refused_with_both_shapes(self, torch, tmp_path, capsys):
        path = tmp_path / "checkpoint.pt"
        torch.save({"ema_denoise_fn": {n: torch.from_numpy(x) for n, x in tensors("ddpm").items()}}, path)
        line = refused(capsys, tmp_path / "run", f"--checkpoint={path}", "--config=configs/ddpm_celeba.py")
        assert "does not fit the model" in line and "missing for the model" in line
        mult = (
            "--config.method.unet.mult=1,2,4",
            "--config.method.unet.blocks=1",
            "--config.method.unet.attention=32,16",
        )
        line = refused(capsys, tmp_path / "run", f"--checkpoint={path}", "--config=configs/ddpm_celeba.py", *mult)
        assert "time_embed.0.weight [128, 32] for params/unet/time_in/kernel [64, 256]" in line
