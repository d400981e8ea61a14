"""The benchmark runs for methods with and without a code, and says what it measured."""

import json
import subprocess
import sys

import pytest

from benchmarks import forms, throughput
from configs import ddpm_digits, latent_prior_digits
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from tests.tiny import ROOT, tiny_config


def tiny(module):
    config = module.get_config().unlock()
    if config.method.name == "ddpm":
        config.data.image_size = 8
        config.method.unet.update(width=8, mult=(1,), attention=())
    else:
        config.data.channels = 6
        config.method.mlp.update(width=16, layers=3)
    config.sampling.steps = 2
    return config.lock()


CASES = [
    *((lambda: tiny(ddpm_digits), what) for what in ("train", "sample")),
    *((lambda: tiny(latent_prior_digits), what) for what in ("train", "sample")),
    *((tiny_config, what) for what in ("train", "sample", "encode")),
]


@pytest.mark.parametrize(("config", "what"), CASES)
def test_every_kind_of_method_is_measured(config, what, monkeypatch):
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: (1e9, "given"))  # takes seconds
    row = throughput.measure(config(), what, batch_size=8, repeats=2)
    assert row["images_per_second"] == pytest.approx(8 / row["seconds"])
    assert 0 < row["seconds_min_max"][0] <= row["seconds"] <= row["seconds_min_max"][1]
    assert row["gflop_per_image"] > 0 and row["what"] == what


@pytest.mark.parametrize(
    "module, why", [(ddpm_digits, "run has no codes"), (latent_prior_digits, "makes the codes of an auto-encoder")]
)
def test_encoding_by_a_method_without_codes_is_refused(module, why):
    with pytest.raises(UserError, match=why):
        throughput.measure(tiny(module), "encode", batch_size=2, repeats=1)


def test_the_command_appends_its_numbers_to_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(throughput, "peak_flops", lambda device, dtype: (1e9, "given"))
    command = ["--config=configs/latent_prior_digits.py", "--what=sample", f"--json={tmp_path / 'rows.jsonl'}"]
    command += ["--config.method.mlp.width=8", "--config.sampling.steps=1", "--batch=3", "--repeats=1"]
    for _ in range(2):
        throughput.main(command)
    first, second = map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines())
    assert first.keys() == second.keys() and (first["what"], first["batch"]) == ("sample", 3)
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[0]) == first and printed[1].startswith("| config | what | batch |")


def test_the_distinct_convolutions_of_a_config_are_tried_in_bfloat16(monkeypatch):
    method = build(tiny_config().method)
    found = forms.convolutions(method, 4)
    assert len(found) == len(set(found))
    for image, kernel in (((4, 8, 8, 2), (3, 3, 2, 8)), ((4, 8, 8, 16), (1, 1, 16, 8)), ((4, 8, 8, 16), (1, 1, 16, 1))):
        assert any(conv[:2] == (image, kernel) for conv in found)  # into the U-Net, a skip, out of the generator
    monkeypatch.setattr(forms, "convolutions", lambda method, batch: found[:1])
    (row,) = forms.try_convolutions(method, 4)
    assert 0 < row["error"] < 0.01 and row["ok"]


@pytest.mark.parametrize(
    "command",
    [
        "forms --config=configs/latent_prior_digits.py",
        "examples --run=nowhere",
        "few_steps --workdir=nowhere --out=x.md",
    ],
)
def test_wrong_input_is_one_line(command):
    done = subprocess.run(
        [sys.executable, "-m", *f"benchmarks.{command}".split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
