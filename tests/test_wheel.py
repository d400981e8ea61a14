"""What a wheel is made of, and the command of an installation, from any folder."""

import os
import runpy
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import diffrep_jax
from diffrep_jax.errors import UserError
from launch import main
from tests.tiny import ROOT


def described(monkeypatch):
    """What setup.py says."""
    said = {}
    monkeypatch.setattr("setuptools.setup", lambda **settings: said.update(settings))
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return said


def test_the_wheel_has_all_packages_and_the_experiments(monkeypatch):
    said = described(monkeypatch)
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "diffrep_jax").rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert set(said["packages"]) == packages | {"diffrep_jax.share.launch", "diffrep_jax.share.configs"}
    assert said["package_dir"] == {f"diffrep_jax.share.{name}": name for name in ("launch", "configs")}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert declared["project"]["scripts"] == {"diffrep-jax": "diffrep_jax.command:main"}
    assert "packages" not in declared["tool"]["setuptools"], "setup.py says them"


def test_an_installation_runs_its_experiments_from_anywhere(tmp_path, monkeypatch):
    """Laid out as the wheel is, the checkout out of sight."""
    site = tmp_path / "site"
    for package in ("launch", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, site / "diffrep_jax" / "share" / package, ignore=ignored)
    shutil.copytree(ROOT / "diffrep_jax", site / "diffrep_jax", dirs_exist_ok=True, ignore=ignored)
    (tmp_path / "elsewhere").mkdir()
    code = "from diffrep_jax.command import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--config=dbae_digits", "--task=inspect_data", "--workdir=seen"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "elsewhere" / "seen" / "inspect_data" / "contact_sheet.png").is_file()


@pytest.mark.parametrize("given", ["dbae_digits", "dbae_digits:bridge=ve", "configs/dbae_digits.py:bridge=ve"])
def test_a_config_is_named_by_its_path_or_its_bare_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, _, variant = main.config_file(given).partition(":")
    assert file == str(ROOT / "configs" / "dbae_digits.py") and variant == given.partition(":")[2]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "dbae_digits.py").touch()  # one's own comes first
    assert main.config_file("configs/dbae_digits.py") == "configs/dbae_digits.py"
    with pytest.raises(UserError, match="No config file .*dbae_digit.py. Did you mean .*dbae_digits.py?"):
        main.main(["--config=dbae_digit", "--task=inspect_data", "--workdir=x"])


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["version"], citation["license"]) == (diffrep_jax.__version__, declared["license"])
