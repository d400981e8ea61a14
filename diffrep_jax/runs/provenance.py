"""What made a run: `run.json`, for each start of its training when, from which step, code, versions and devices."""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

import diffrep_jax
from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


def record_start(
    folder: str | os.PathLike[str],
    step: int,
    mesh: Mesh,
    data: Mapping[str, Any],
    changed: Mapping[str, tuple[Any, Any]],
) -> None:
    """Add a start from `step` to `run.json`. Starts whose steps will all be done again are dropped.

    data: which data it trains on; changed: {field: (before, now)} of the settings that differ from the last start's.
    """
    device = mesh.devices.flat[0]
    start = {
        "began": round(time.time(), 1),
        "from_step": step,
        **software(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
        "data": dict(data),
        "changed": {name: list(values) for name, values in changed.items()},
    }
    kept = [earlier for earlier in starts(folder) if earlier["from_step"] < step]
    layout.write_json(layout.as_path(folder) / layout.STARTS, {"starts": [*kept, start]})


def starts(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The entries of `run.json`, oldest first; none where there is no such file. UserError where it cannot be read."""
    path = layout.as_path(folder) / layout.STARTS
    if not path.is_file():
        return []
    remedy = "restore it or delete it."
    content = layout.read_json(path, remedy)
    if not isinstance(content, dict) or not isinstance(content.get("starts"), list):
        raise UserError(f"{path} has no list of starts; {remedy}")
    return content["starts"]


def software() -> dict[str, Any]:
    """{"commit": of this code, "modified": whether its files differ from it, "versions": {name: version}}.

    Commit and modified are None where this code is not a git checkout.
    """
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return {
        "commit": commit,
        "modified": None if commit is None or changes is None else bool(changes),
        "versions": {"diffrep_jax": diffrep_jax.__version__, "python": platform.python_version(), **versions},
    }


def _git(*arguments: str) -> str | None:
    """What git says in the checkout that this file is part of; None where it is part of none."""
    package = pathlib.Path(diffrep_jax.__file__).parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=package, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        ask("ls-files", "--error-unmatch", "__init__.py")  # not of a repository that merely surrounds an installation
        return ask(*arguments)
    except (OSError, subprocess.SubprocessError):
        return None
