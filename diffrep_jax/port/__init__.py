"""Official checkpoints in and out: an engine of rules, and one file of rules for each method's official code."""

import importlib
import pathlib
from types import ModuleType

_SHARED = {"__init__", "config_yml", "engine", "files", "own", "parts", "torch_file", "unet"}


def names() -> list[str]:
    """The methods whose official checkpoints are known: one for each file of rules."""
    return sorted(p.stem for p in pathlib.Path(__file__).parent.glob("*.py") if p.stem not in _SHARED)


def source(method: str) -> ModuleType:
    """The rules for a method of `names()`, a module with

    table(method), check(method, shapes, source), unused(method, tensors): the rules, for a config's `method` section;
    PARTS: the state dicts that a checkpoint holds, {official part: what its names start with}; {}: it is a plain one.
    Where there are parts there is a config.yml, and also
    shape(yml): the fields of the section that it determines; UNDETERMINED: those that without it no file determines.
    """
    return importlib.import_module(f"diffrep_jax.port.{method}")
