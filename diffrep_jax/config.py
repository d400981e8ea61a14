"""Configs: `configs/<file>.py:<variant>` and command-line overrides; a run's own config is runs/config.py's.

A config file has `get_config(variant: str = "") -> ConfigDict`.
"""

import ast
import difflib
import importlib.util
import pathlib
import re
import traceback
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import refuse_non_finite, shown

WORDS = re.compile(r"[^\s,'\"()\[\]{}=]+(, ?[^\s,'\"()\[\]{}=]+)*,?")  # several texts without quotes


def load_file(spec: str) -> ConfigDict:
    """The locked config of `path.py` or `path.py:variant`, as in `configs/dbae_celeba.py:bridge=ve`."""
    path_text, _, variant = spec.partition(":")
    path = pathlib.Path(path_text)
    if path.is_dir():
        raise UserError(f"No config file {path}: it is a folder; name a file, such as configs/dbae_digits.py.")
    if not path.is_file():
        siblings = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Name one, such as configs/dbae_digits.py."
        raise UserError(f"No config file {path}. {hint}")
    try:
        module = _imported(path)
        if not callable(getattr(module, "get_config", None)):
            raise UserError(f"{path} defines no get_config(variant); see configs/dbae_digits.py.")
        config = module.get_config(variant)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = next(
            (f.lineno for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == str(path)), None
        )
        where = f"{path}, line {line}" if line else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {shown(str(error))}; mend the config file.") from None
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config returns {shown(config)}; return an ml_collections.ConfigDict.")
    return config.lock()


def _imported(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; a config file defines get_config(variant).")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse_variant(variant: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """`"bridge=ve,encoder=stochastic"` -> one value for every name of `choices`: {name: allowed values}.

    The first allowed value is the default. Raises UserError for a name or a value that is not there, for an empty part,
    and for a name that comes twice.
    """
    if variant and not choices:
        raise UserError(f"Unknown variant '{variant}': this config has none; leave ':{variant}' out.")
    given: set[str] = set()
    chosen = {name: values[0] for name, values in choices.items()}
    for part in variant.split(",") if variant else ():
        name, _, value = part.partition("=")
        if not part:
            raise UserError(f"The variant '{variant}' has a comma too many; write NAME=VALUE,NAME=VALUE.")
        if name in given:
            raise UserError(f"The variant '{variant}' says {name} twice; leave one out.")
        given.add(name)
        if name not in choices:
            raise unknown("variant", name, choices, f"'{variant}'")
        if value not in choices[name]:
            raise unknown(f"value of variant {name}", value, choices[name], f"'{variant}'")
        chosen[name] = value
    return chosen


def override(config: ConfigDict, overrides: Mapping[str, str]) -> None:
    """Set `{"optim.lr": "2e-4"}` in place; the text is read as the type of the value that it replaces."""
    for name, text in overrides.items():
        *parents, field = name.split(".")
        section = config
        for depth, parent in enumerate(parents):
            section = _child(section, parent, ".".join(parents[:depth]))
            if not isinstance(section, ConfigDict):
                raise UserError(f"config.{'.'.join(parents[: depth + 1])} is a value, not a section; see config.json.")
        old = _child(section, field, ".".join(parents))
        if isinstance(old, ConfigDict):
            raise UserError(f"config.{name} is a section; set one of its fields: {', '.join(sorted(old))}.")
        section[field] = _read(text, old, name)


def _child(section: ConfigDict, field: str, place: str) -> Any:
    if field not in section:
        raise unknown("config field", field, section, "config" + (f".{place}" if place else ""))
    return section[field]


def _read(text: str, old: Any, name: str) -> Any:
    """`text` as a value of the type of `old`."""
    if isinstance(old, str):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about what it reads all the same
            value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = _as_float(value, f"config.{name}={shown(value)}")
    if isinstance(old, tuple | list):
        value = _as_tuple(value, of_words=all(isinstance(item, str) for item in old))
    same_kind = isinstance(value, tuple) if isinstance(old, tuple | list) else type(value) is type(old)
    if old is not None and not same_kind:
        raise UserError(f"config.{name}={_cut(text)}: expected {type(old).__name__}, as in {shown(old)}.")
    refuse_non_finite(value, f"config.{name}={_cut(text)}")
    return value


def _as_tuple(value: Any, of_words: bool) -> Any:
    """A list as a tuple, and what is one value, or `of_words` some without quotes; else as it is."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, int | float | dict) and not isinstance(value, bool):
        return (value,)
    if of_words and isinstance(value, str) and WORDS.fullmatch(value):
        return tuple(word.strip() for word in value.removesuffix(",").split(","))
    return value


def _cut(text: str) -> str:
    """As `shown`, as it was typed."""
    return text if len(text) <= 100 and text.isprintable() else shown(text)


def _as_float(value: int, place: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{place} is too large for a float; use a smaller number.") from None
