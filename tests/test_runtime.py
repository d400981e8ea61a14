"""The section `runtime`: what it says reaches XLA before it starts; what XLA has not is refused in one line."""

import os
import pathlib

import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.models.attention import SWITCH
from diffrep_jax.train.settings import Runtime
from launch import main, runtime
from tests.tiny import run_python

NAMES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_FLAGS", "LIBTPU_INIT_ARGS", SWITCH)


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # what is set in the test is undone, too
        monkeypatch.delenv(name)
    return os.environ


def test_the_defaults_change_nothing(environment):
    before = dict(environment)
    runtime.apply(Runtime())
    assert dict(environment) == before


def test_every_setting_is_an_environment_variable(environment, monkeypatch):
    monkeypatch.setattr(runtime, "_check_flags", lambda: None)
    environment["XLA_FLAGS"] = "--xla_a=1"
    environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.1"  # JAX refuses both
    flags = ("--xla_gpu_b=true", "--xla_tpu_c=2", "--xla_d")
    runtime.apply(Runtime(memory_fraction=0.9, xla_flags=flags, fused_attention=False))
    set_to = {name: environment.get(name) for name in NAMES}
    assert set_to == {
        "XLA_CLIENT_MEM_FRACTION": "0.9",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": None,
        "XLA_FLAGS": "--xla_a=1 --xla_gpu_b=true --xla_d",
        "LIBTPU_INIT_ARGS": "--xla_tpu_c=2",
        SWITCH: "0",
    }


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_fraction": 1.2}, "runtime.memory_fraction is 1.2; use a number from 0 on, up to 1"),
        ({"xla_flags": "--xla_a"}, "runtime.xla_flags is '--xla_a'; use a list"),
        ({"xla_flags": ("xla_a=1",)}, "'xla_a=1' is no flag; write --xla_NAME=VALUE"),
        ({"xla_flags": ("--xla_a=1 --xla_b=2",)}, "is no flag"),
        ({"fused_attention": 1}, "runtime.fused_attention is 1; use True or False"),
    ],
)
def test_values_that_are_none_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Runtime(**fields)


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--xla_gpu_no_such_thing=1", "Unknown flag in XLA_FLAGS: --xla_gpu_no_such_thing=1"),
        ("--xla_gpu_autotune_level=much", "value much for flag xla_gpu_autotune_level"),
    ],
)
def test_flags_that_xla_does_not_take_are_one_line(flag, reason, environment, capsys):
    """XLA itself would abort the process."""
    with pytest.raises(SystemExit) as stop:
        main.run(["--task=inspect_data", "--config=configs/dbae_digits.py", f"--config.runtime.xla_flags=('{flag}',)"])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and line.startswith("error: XLA refuses config.runtime.xla_flags: ") and reason in line


def test_flags_are_there_before_jax_starts(tmp_path):
    flag = "--config.runtime.xla_flags=('--xla_force_host_platform_device_count=3',)"
    command = ["--task=inspect_data", "--config=dbae_digits", f"--workdir={tmp_path / 'run'}", flag]
    code = f"from launch import main; main.main({command}); import jax; print(jax.device_count())"
    assert run_python(code).splitlines()[-1] == "3"


def test_an_empty_cache_folder_is_none():
    """XDG_CACHE_HOME="" is not set, says its specification; it was a folder of the current one, the package itself."""
    code = (
        "import os; os.environ.pop('JAX_COMPILATION_CACHE_DIR', None); os.environ['XDG_CACHE_HOME'] = '';"
        "from launch import runtime; runtime.set_up(); import jax; print(jax.config.jax_compilation_cache_dir)"
    )
    assert run_python(code).strip() == str(pathlib.Path.home() / ".cache" / "diffrep_jax")


@pytest.mark.parametrize("libraries_first", [False, True])
def test_the_log_is_ours_and_the_libraries_warnings(libraries_first):
    """Whatever handlers and levels a library has set up before."""
    code = f"""
import logging
{"from absl import logging as theirs; theirs.use_absl_handler(); theirs.set_verbosity(0)" * libraries_first}
from launch import runtime
runtime.show_log("%(message)s", force={libraries_first})
for name in ("absl", "orbax.checkpoint", "jax._src.x", "diffrep_jax.x"):
    logging.getLogger(name).info("%s tells", name)
    logging.getLogger(name).warning("%s warns", name)
"""
    expected = [
        "absl warns",
        "orbax.checkpoint warns",
        "jax._src.x warns",
        "diffrep_jax.x tells",
        "diffrep_jax.x warns",
    ]
    assert run_python(code).splitlines() == expected
