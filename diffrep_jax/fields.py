"""A config's section is the fields of a dataclass: made of one, completed from its defaults, refused where unknown."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

from diffrep_jax.errors import UserError, unknown


def construct(cls: type, values: Mapping[str, Any], place: str) -> Any:
    """The dataclass with these fields, the others as it says; UserError naming `place` for unknown or missing ones."""
    known = {f.name: f for f in dataclasses.fields(cls)}
    refuse_unknown(values, known, place)
    missing = [name for name, field in known.items() if name not in values and not _has_default(field)]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}; add it to the config.")
    return cls(**values)


def refuse_unknown(values: Collection[str], known: Collection[str], place: str) -> None:
    """Raise UserError for a field that is not among `known`."""
    for field in values:
        if field not in known:
            raise unknown("field", field, known, place)


def defaults(cls: type, without: Collection[str] = ()) -> dict[str, Any]:
    """{field: default} of a dataclass, of those fields that have one."""
    return {
        f.name: f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc]
        for f in dataclasses.fields(cls)
        if _has_default(f) and f.name not in without
    }


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def check_numbers(owner: Any, place: str, least: Mapping[str, float]) -> None:
    """Raise UserError where one of these fields of `owner` is no finite number of at least so much."""
    for name, low in least.items():
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < low:
            raise UserError(f"{place}.{name} is {value!r}; use {low:g} or more.")


def check_count(value: Any, name: str, none: bool = False) -> None:
    """Raise UserError unless a number of images is at least 1, or -1 for all (with `none` also 0 for none)."""
    if type(value) is not int or not (value >= 1 or value == -1 or (none and value == 0)):
        raise UserError(f"{name} {value!r} must be at least {0 if none else 1}, or -1 for all.")
