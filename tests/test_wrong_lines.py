"""Wrong command lines: exit code 2, one line that names the value, its place and the remedy, and nothing written."""

import subprocess
import sys

import pytest

from diffrep_jax import config as configs
from diffrep_jax import hosts, paths, sections
from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.runs import config as run_config
from diffrep_jax.tasks import base as tasks
from launch import main
from tests.tiny import ROOT

SPECS = ("dbae", "ddpm", "pdae:ssl=simsiam", "diti:ssl=simclr", "diffae", "latent_prior")
HUGE = str(2**64)
# By the type of a field's value, what no such field takes.
WRONG = {
    bool: ("2", "yes", "1.0", "", "None"),
    int: ("nan", "inf", "1e999", "4.0", "1000000000000", HUGE, "-1000000000000", "", "²", "(4,)", "True", "9" * 5000),
    float: ("nan", "-inf", "1e999", "1e300", "-1e300", "", "²", "(0.1,)", "False", "9" * 500),
    tuple: ("True", "a b", "(None,)", "(1e999,)", f"({HUGE},)", "((((", "", "(nan,)", "{[1]: 2}"),
    str: ("a\0b", "two\nlines", "x" * 5000),
}


def config_of(spec):
    name, _, variant = spec.partition(":")
    return sections.complete(configs.load_file(f"{ROOT}/configs/{name}_digits.py:{variant}"))


def fields_of(section, prefix=""):
    for name, value in section.items():
        yield from fields_of(value, f"{prefix}{name}.") if hasattr(value, "items") else [(prefix + name, value)]


@pytest.mark.parametrize("spec", SPECS)
def test_no_field_of_any_section_takes_what_it_is_not(spec):
    """Of another type, not finite, or of a size that nothing has."""
    config = config_of(spec)
    fields = list(fields_of(config))
    assert len(fields) > 120 and {"seed", "tasks.sample.bandwidth", "optim.lr"} <= {name for name, _ in fields}
    if spec.startswith(("pdae", "diti")):
        assert {"method.unet.emb_width", "method.encoder.heads", "method.ssl.hidden"} <= {name for name, _ in fields}
    for field, value in fields:
        for text in WRONG[type(value)]:
            changed = config.copy_and_resolve_references()
            with pytest.raises(UserError) as error:
                configs.override(changed, {field: text})
                sections.check(changed, tasks.names())
                build(changed.method)
            place = field.rpartition(".")[2]
            message = str(error.value)
            assert place in message and len(message) < 1000 and "\n" not in message, (field, text, message)


def run(*arguments, capsys):
    """(exit code, what went to stderr) of a line that computes nothing."""
    with pytest.raises(SystemExit) as stop:
        main.run([*map(str, arguments)])
    return stop.value.code, capsys.readouterr().err


DBAE, DDPM, DITI = (f"--config=configs/{name}_digits.py" for name in ("dbae", "ddpm", "diti"))
LINES = [
    # fields that mean nothing
    ([DBAE, "--config.method.unet.mult=()"], ["config.method.unet.mult is ()", "at least one"]),
    ([DBAE, "--config.method.unet.mult=(0,)"], ["config.method.unet.mult is 0", "from 1 on"]),
    ([DBAE, "--config.method.unet.mult=(1.5,)"], ["config.method.unet.mult is 1.5", "whole number"]),
    ([DBAE, "--config.method.unet.mult=('a',)"], ["config.method.unet.mult is 'a'", "whole number"]),
    ([DBAE, "--config.method.unet.blocks=-1"], ["config.method.unet.blocks is -1", "from 1 on"]),
    ([DBAE, "--config.method.unet.head_dim=-5"], ["config.method.unet.head_dim is -5", "or -1"]),
    ([DBAE, "--config.method.unet.head_dim=5"], ["head_dim", "32 channels", "6 heads"]),
    ([DDPM, "--config.method.unet.heads=3"], ["config.method.unet.heads", "32 channels", "3 heads"]),
    ([DBAE, "--config.method.unet.attention=('8',)"], ["config.method.unet.attention is '8'", "whole number"]),
    ([DBAE, "--config.method.unet.dropout=2.0"], ["config.method.unet.dropout is 2.0", "below 1"]),
    ([DBAE, "--config.method.encoder.width=7"], ["config.method.encoder.width is 7", "divisible by 4"]),
    ([DBAE, "--config.method.encoder.width=-8"], ["config.method.encoder.width is -8", "from 4 on"]),
    ([DBAE, "--config.method.generator.width=0"], ["config.method.generator.width is 0", "from 1 on"]),
    (
        [DBAE, "--config.method.latent_dim=1000000000000"],
        ["config.method.latent_dim is 1000000000000", "2,147,483,647"],
    ),
    ([DBAE, "--config.method.latent_dim=2000000"], ["config.method.latent_dim is 2000000", "up to 1,048,576"]),
    ([DBAE, "--config.method.cov_xy=5.0"], ["config.method.cov_xy 5.0", "at most 0.25"]),
    ([DBAE, "--config.method.sigma_data=0.0"], ["config.method.sigma_data is 0.0", "above 0"]),
    ([DITI, "--config.method.k=0"], ["config.method.k is 0", "from 1 on"]),
    ([DBAE, f"--config.seed={HUGE}"], ["config.seed is 18446744073709551616", "2,147,483,647"]),
    ([DBAE, "--config.seed=-1"], ["config.seed is -1", "from 0 on"]),
    ([DBAE, "--config.train.keep_last=0"], ["config.train.keep_last is 0", "from 1 on"]),
    ([DBAE, "--config.train.log_every=-1"], ["config.train.log_every is -1", "from 1 on"]),
    ([DBAE, "--config.train.checkpoint_every=-5"], ["config.train.checkpoint_every is -5", "from 1 on"]),
    ([DBAE, "--config.train.max_minutes=-1.0"], ["config.train.max_minutes is -1.0", "from 0 on"]),
    ([DBAE, "--config.train.microbatch_size=7"], ["batch_size 64", "microbatch_size 7", "divisor"]),
    ([DBAE, "--config.tasks.reconstruct.every_steps=-1"], ["reconstruct.every_steps is -1", "0 or more"]),
    ([DBAE, "--config.tasks.manipulate.scales=()"], ["config.tasks.manipulate.scales is ()", "at least one"]),
    ([DBAE, "--config.tasks.probe.lr=0.0"], ["config.tasks.probe.lr is 0.0", "above 0"]),
    ([DBAE, "--config.optim.name=adm"], ["'adm'", "config.optim.name", "Did you mean 'adam'"]),
    ([DBAE, "--config.optim.lr=1e999"], ["config.optim.lr=1e999", "no finite number"]),
    ([DBAE, "--config.data.name=digit"], ["'digit'", "config.data.name", "Did you mean 'digits'"]),
    ([DBAE, "--config.tasks.reconstruct.split=tset"], ["'tset'", "tasks.reconstruct.split", "Did you mean 'test'"]),
    ([DBAE, "--config.train.init_from=/nowhere"], ["train.init_from=/nowhere", "trained one"]),
    ([DITI], ["unet frozen", "--config.train.init_from=RUN"]),
    ([DBAE, "--config.mesh.data=0"], ["config.mesh.data is 0", "or -1"]),
    # names at each depth
    ([DBAE, "--config.method.unet.widht=8"], ["'widht'", "config.method.unet", "Did you mean 'width'"]),
    ([DBAE, "--config.tasks.sampel.prior=x"], ["'sampel'", "config.tasks", "Did you mean 'sample'"]),
    ([DBAE, "--config.method.unet.width.x=8"], ["config.method.unet.width is a value"]),
    ([DBAE, "--config.=3"], ["Unknown config field ''"]),
    # what does not go together
    ([DBAE, "--config.sampling.grid=ddim_space"], ["ddim_space", "grid=karras"]),
    ([DBAE, "--config.sampling.sampler=leapfrog", "--config.sampling.churn_step_ratio=0.3"], ["0.3", "leapfrog"]),
    ([DDPM, "--config.sampling.order=3", "--config.sampling.eta=0.5"], ["order 3", "eta 0.5"]),
    ([DDPM, "--config.sampling.start=noise"], ["start=noise", "start=mean"]),
    # flags
    ([DBAE, "--data_dir"], ["--data_dir", "expected one argument", "--help"]),
    ([DBAE, "--multihost=3"], ["--multihost", "--help"]),
    ([DBAE, "--data_dir="], ["--data_dir", "empty"]),
    ([DBAE, "--data_dir=" + "x" * 300], ["--data_dir", "too long", "255"]),
    ([DBAE, "--data_dir=/nowhere"], ["--data_dir /nowhere does not exist"]),
    ([DBAE, "--data_dir=/nowhere\0"], ["--data_dir", "control character"]),
    ([DBAE, "--data_dir=$NOT_SET_HERE/x"], ["--data_dir", "NOT_SET_HERE, which is not set"]),
    ([DBAE, "--data_dir=~nobody_here/x"], ["--data_dir", "~nobody_here"]),
    ([DBAE, "--task="], ["Unknown task ''", "train"]),
    ([DBAE, "--images=/nowhere"], ["--images", "--task=train"]),
    (["--config="], ["--config", "empty"]),
    (["--config=configs/dbae_digits.py:bridge=vee"], ["'vee'", "Did you mean 've'"]),
    ([DBAE, "--task=interpolate", "--images=/nowhere"], ["--images /nowhere does not exist", "name a photo"]),
    (["--config=configs/ddpm_digits.py:mode=base"], ["Unknown variant 'mode=base'"]),
    (["--config=configs"], ["No config file configs"]),
]


@pytest.mark.parametrize(("arguments", "parts"), LINES, ids=lambda part: " ".join(part)[:60].replace("\0", "0"))
def test_a_wrong_line_is_one_line_and_writes_nothing(arguments, parts, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, error = run(*arguments, f"--workdir={tmp_path / 'run'}", capsys=capsys)
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1 and len(error) < 700, error
    assert all(part in error for part in parts), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workdir", ["", " ", "x" * 300, "/x" * 2500, "a\0b", "$NOT_SET_HERE/run", "~nobody_here/run"])
@pytest.mark.parametrize("task", ["train", "inspect_data", "report"])
def test_a_workdir_that_no_system_has_is_refused(workdir, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, error = run(
        f"--config={ROOT}/configs/dbae_digits.py", f"--workdir={workdir}", f"--task={task}", capsys=capsys
    )
    assert code == 2 and error.startswith("error: --workdir") and error.count("\n") == 1, error
    assert not list(tmp_path.iterdir())


FROM_DIGITS = (
    "from configs.dbae_digits import get_config as digits\ndef get_config(variant=''):\n    c = digits().unlock()\n"
)
FILES = {
    "raises": ("x = 1\ny = x / 0\n", ["line 2", "ZeroDivisionError", "mend"]),
    "raises_inside": ("def get_config(variant):\n    raise ValueError('two\\nlines')\n", ["line 2", "ValueError"]),
    "syntax": ("def (:\n", ["SyntaxError", "mend"]),
    "leaves": ("import sys\nsys.exit(3)\n", ["line 2", "SystemExit"]),
    "none": ("def get_config(variant): pass\n", ["get_config returns None", "ConfigDict"]),
    "a_dict": ("def get_config(variant): return {'a': 1}\n", ["get_config returns {'a': 1}", "ConfigDict"]),
    "lacks": ("x = 1\n", ["defines no get_config"]),
    "not_called": ("get_config = 3\n", ["defines no get_config"]),
    "no_argument": ("def get_config(): pass\n", ["TypeError", "mend"]),
    "empty": ("from ml_collections import ConfigDict\ndef get_config(v): return ConfigDict()\n", ["lacks", "method"]),
    "section": (f"{FROM_DIGITS}    c.trian = {{'batch_size': 3}}\n    return c\n", ["'trian'", "Did you mean 'train'"]),
    "field": (
        f"{FROM_DIGITS}    c.method.unet.widht = 8\n    return c\n",
        ["'widht'", "config.method.unet", "'width'"],
    ),
    "missing": (f"{FROM_DIGITS}    del c.method.unet.width\n    return c\n", ["config.method.unet lacks width"]),
    "no_name": (f"{FROM_DIGITS}    del c.method.name\n    return c\n", ["config.method lacks name"]),
    "value": (f"{FROM_DIGITS}    c.method.unet = None\n    return c\n", ["config.method.unet is None", "section"]),
    "nan": (f"{FROM_DIGITS}    c.method.sigma_data = float('nan')\n    return c\n", ["sigma_data is nan"]),
    "nan_task": (f"{FROM_DIGITS}    c.tasks.probe.lr = float('nan')\n    return c\n", ["tasks.probe.lr is nan"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_that_is_none_says_why(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text, parts = FILES[name]
    (tmp_path / f"{name}.py").write_text(text)
    code, error = run(f"--config={tmp_path}/{name}.py", f"--workdir={tmp_path / 'run'}", capsys=capsys)
    assert code == 2 and error.count("\n") == 1 and "Traceback" not in error, error
    assert all(part in error for part in parts), error
    assert not (tmp_path / "run").exists()


def test_a_number_that_is_none_in_config_json_is_refused_by_its_place(tmp_path, capsys):
    run_config.save(config_of("dbae"), tmp_path)
    text = (tmp_path / "config.json").read_text()
    for number, said in (("NaN", "nan"), ("1e999", "inf")):
        (tmp_path / "config.json").write_text(text.replace('"cov_xy": 0.0', f'"cov_xy": {number}'))
        code, error = run(f"--workdir={tmp_path}", "--task=report", capsys=capsys)
        assert code == 2 and error.count("\n") == 1 and f"config.method.cov_xy is {said}" in error, error
        assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_networks_sections_are_completed_and_checked_as_the_others_are():
    config = config_of("dbae")
    assert (config.method.unet.heads, config.method.unet.emb_width) == (1, -1)  # the file says neither
    assert "heads" not in configs.load_file(str(ROOT / "configs" / "dbae_digits.py")).method.unet
    assert build(config.method).unet["heads"] == 1
    assert build(configs.load_file(str(ROOT / "configs" / "dbae_digits.py")).method) == build(config.method)


def test_a_path_with_a_dollar_that_is_there_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "$NOT_SET_HERE").mkdir()
    assert paths.expanded(tmp_path / "$NOT_SET_HERE") == str(tmp_path / "$NOT_SET_HERE")
    monkeypatch.setenv("SET_HERE", "/data")
    assert paths.expanded("${SET_HERE}/x") == "/data/x"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--workdir"], "expected one argument"), (["--config.method.unet.blocks=1e999"], "config.method.unet.blocks")],
)
def test_the_command_itself_prints_one_line(arguments, part, tmp_path):
    """No usage, no traceback, no warning of a library."""
    line = [sys.executable, str(ROOT / "launch" / "main.py"), *arguments]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and part in done.stderr, done.stderr
    assert not done.stdout and not list(tmp_path.iterdir())


TASKS = [name for name in tasks.names() if tasks.task_class(name).needs_run and name not in ("export", "report")]


@pytest.mark.parametrize("task", TASKS)
def test_a_prior_in_the_place_of_its_auto_encoder_is_refused_as_one(task, tmp_path, capsys):
    run_config.save(config_of("latent_prior"), tmp_path)
    code, error = run(f"--workdir={tmp_path}", f"--task={task}", capsys=capsys)
    assert code == 2 and error.count("\n") == 1, error
    assert "A LatentPrior run makes the codes" in error and "--config.tasks.sample.prior" in error, error
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_photos_are_looked_for_where_the_task_is_done_alone(tiny_run, monkeypatch):
    """The other hosts of a run leave it to the first one, and may have no such folder."""
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    main.main([f"--workdir={tiny_run}", "--task=reconstruct", "--images=/nowhere"])
