"""Official checkpoints in and out: an engine of rules, and one file of rules for each method's official code."""

import importlib
import pathlib
from types import ModuleType

_SHARED = {"__init__", "engine", "files", "own", "unet", "latent_mlp"}


def names() -> list[str]:
    """The methods whose official checkpoints are known: one for each file of rules."""
    return sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py") if p.stem not in _SHARED)


def source(method: str) -> ModuleType:
    """The rules for a method of `names()`: a module with `table`, `check` and `unused`."""
    return importlib.import_module(f"diffrep_jax.port.{method}")
