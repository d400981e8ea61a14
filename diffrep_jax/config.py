"""Configs: `configs/<file>.py:<variant>`, command-line overrides, and the `config.json` of a run.

A config file has `get_config(variant: str = "") -> ConfigDict`. The saved file is the run's own description: a task
that is given a run and no config reads it from there.
"""

import ast
import difflib
import importlib.util
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffrep_jax.errors import UserError, unknown

FILE_NAME = "config.json"


def load_file(spec: str) -> ConfigDict:
    """The locked config of `path.py` or `path.py:variant`, as in `configs/dbae_celeba.py:bridge=ve`."""
    path_text, _, variant = spec.partition(":")
    path = pathlib.Path(path_text)
    if not path.is_file():
        siblings = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"No config file {path}.{hint}")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"{path} is not a Python file; a config file defines get_config(variant).")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} defines no get_config(variant); see configs/dbae_digits.py.")
    return module.get_config(variant).lock()


def parse_variant(variant: str, choices: Mapping[str, Any]) -> dict[str, Any]:
    """`"bridge=ve,encoder=stochastic"` -> one value for every name of `choices`: {name: allowed values}.

    The first allowed value is the default. Raises UserError for a name or a value that is not there.
    """
    chosen = {name: values[0] for name, values in choices.items()}
    for part in filter(None, variant.split(",")):
        name, _, value = part.partition("=")
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
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(old, tuple | list) and isinstance(value, tuple | list):
        value = tuple(value)
    same_kind = isinstance(value, tuple) if isinstance(old, tuple | list) else type(value) is type(old)
    if old is not None and not same_kind:
        raise UserError(f"config.{name}={text}: expected {type(old).__name__}, as in {old!r}.")
    return value


def save(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Write `config.json`, all of it or nothing."""
    text = json.dumps(config.to_dict(), indent=2, default=list) + "\n"
    temporary = workdir / f".{FILE_NAME}.tmp"
    temporary.write_text(text)
    os.replace(temporary, workdir / FILE_NAME)


def is_run(workdir: pathlib.Path) -> bool:
    """Whether a folder is a run's."""
    return (workdir / FILE_NAME).is_file()


def load_run(workdir: str | os.PathLike[str]) -> ConfigDict:
    """The locked config of a run."""
    path = pathlib.Path(workdir) / FILE_NAME
    if not path.is_file():
        raise UserError(f"No {FILE_NAME} in {workdir}: not a run. Give a --workdir that --task=train has written.")
    try:
        return ConfigDict(_tuples(json.loads(path.read_text()))).lock()
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it or start the run in a new --workdir.") from None


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def check_same_model(config: ConfigDict, workdir: pathlib.Path, overridden: Iterable[str] = ()) -> None:
    """Raise UserError where `workdir` holds a run whose model or data differ from `config`'s.

    Other data of the same shape may be meant, where their fields are among the `overridden`: fine-tuning.
    """
    free = _FREE | {name for name in overridden if name.startswith("data.")} - {"data.image_size", "data.channels"}
    if not is_run(workdir):
        return
    saved = load_run(workdir).to_dict()
    for section in ("method", "data"):
        ours, theirs = _flat(_tuples(config.to_dict()[section])), _flat(saved.get(section, {}))
        for field in sorted(ours.keys() | theirs.keys()):
            if ours.get(field) != theirs.get(field) and f"{section}.{field}" not in free:
                raise UserError(
                    f"{workdir} holds a run with {section}.{field}={theirs.get(field)!r}, this config has "
                    f"{ours.get(field)!r}; use another --workdir or the run's own config."
                )


# Fields that may change when a run goes on: they alter neither the shapes nor what was learned.
_FREE = {
    "data.workers",
    "data.worker_kind",
    "data.max_bad_fraction",
    "method.dtype",
    "method.remat",
    "method.unet.dropout",
}


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in section.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out
