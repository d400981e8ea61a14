"""A run's `config.json`: its own description, which a task reads that is given a run and no config."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from diffrep_jax.errors import UserError
from diffrep_jax.fields import refuse_non_finite
from diffrep_jax.runs import earlier, layout
from diffrep_jax.types import Config


def save(config: Config, folder: str | os.PathLike[str]) -> None:
    """Write `config.json`, all of it or nothing."""
    layout.write_json(layout.as_path(folder) / layout.CONFIG, config.to_dict())


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is a run's."""
    return (layout.as_path(folder) / layout.CONFIG).is_file()


def load(folder: str | os.PathLike[str]) -> Config:
    """The locked config of a run, in today's form; UserError where there is none or it cannot be read.

    Fields that an earlier version did not have are left out: whoever owns a section completes it from its defaults.
    """
    path = layout.as_path(folder) / layout.CONFIG
    if not path.is_file():
        raise UserError(
            f"No {layout.CONFIG} in {path.parent}: not a run. Give a --workdir that --task=train has written."
        )
    remedy = "restore it or start the run in a new --workdir."
    content = layout.read_json(path, remedy)
    sections = ("method", "data", "optim", "train", "mesh", "tasks")
    broken = not isinstance(content, dict) or not all(isinstance(content.get(name), dict) for name in sections)
    if broken:
        raise UserError(f"{path} lacks one of the sections {', '.join(sections)}; {remedy}")
    refuse_non_finite(content, f"{path}: config")
    config: Any = ConfigDict(as_tuples(earlier.upgraded(content)))
    return config.lock()


def as_tuples(value: Any) -> Any:
    """Lists, as JSON has them, as the tuples that they were."""
    if isinstance(value, dict):
        return {key: as_tuples(item) for key, item in value.items()}
    return tuple(as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def check_same_model(config: Config, saved: Config, folder: str | os.PathLike[str], changeable: Iterable[str]) -> None:
    """Raise UserError where the model or the data of the run in `folder`, `saved`, differ from `config`'s.

    `changeable`: the fields, such as "data.workers", that may differ.
    """
    for field, (theirs, ours) in differences(saved, config, ("method", "data")).items():
        if field not in set(changeable):
            raise UserError(
                f"{folder} holds a run with {field}={theirs!r}, this config has {ours!r}; use another --workdir or the "
                "run's own config."
            )


def differences(saved: Config, config: Config, sections: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """{"section.field": (saved value, value now)} where they differ."""
    changed = {}
    for section in sections:
        theirs, ours = (_flat(as_tuples(c.to_dict().get(section, {}))) for c in (saved, config))
        for field in sorted(ours.keys() | theirs.keys()):
            if ours.get(field) != theirs.get(field):
                changed[f"{section}.{field}".rstrip(".")] = (theirs.get(field), ours.get(field))
    return changed


def _flat(section: Any, prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    if not isinstance(section, Mapping):
        return {prefix.rstrip("."): section}
    for key, value in section.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return out
