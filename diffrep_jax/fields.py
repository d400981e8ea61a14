"""A config's section is the fields of a dataclass: made of one, completed from its defaults, refused where it is wrong.

A field's type says what it takes: `int`, `float`, `bool`, `str`, tuples of these; with `Within` which numbers, with
`Section` the fields of another dataclass.
"""

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from diffrep_jax import paths
from diffrep_jax.errors import UserError, unknown

LARGEST = 2**31 - 1  # whole numbers: steps, seeds and sizes are int32 where they are computed with
LARGEST_FLOAT = 1e9  # of what is computed in float32, more means nothing
LONGEST_TEXT = 4095


@dataclasses.dataclass(frozen=True)
class Within:
    """The numbers in [least, most] that `multiple` divides, and those of `also`.

    above: without `least` itself; below: without `most`.
    """

    least: float = -math.inf
    most: float = math.inf
    also: tuple[float, ...] = ()
    multiple: int = 1
    above: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        low = value > self.least if self.above else value >= self.least
        high = value < self.most if self.below else value <= self.most
        return (low and high and (self.multiple == 1 or value % self.multiple == 0)) or value in self.also

    def __str__(self) -> str:
        low = f"above {self.least:g}" if self.above else f"from {self.least:,} on"
        high = f"below {self.most:g}" if self.below else f"up to {self.most:,}"
        parts = [text for text, end in ((low, self.least), (high, self.most)) if math.isfinite(end)]
        parts += [f"divisible by {self.multiple}"] * (self.multiple > 1)
        return ", ".join(parts) + "".join(f", or {value}" for value in self.also)


@dataclasses.dataclass(frozen=True)
class Section:
    """A mapping of the fields of a dataclass, but for those that others give it."""

    cls: type
    without: tuple[str, ...] = ()


NOT_EMPTY = "not empty"  # of tuples
PATH = "path"  # of texts: of a file or folder; ~ and environment variables may be in it; "" is for none


# Kinds of numbers that many fields are.
Count = Annotated[int, Within(1)]
Natural = Annotated[int, Within(0)]
Positive = Annotated[float, Within(0, above=True)]
NotNegative = Annotated[float, Within(0)]
PathText = Annotated[str, PATH]
Width = Annotated[int, Within(4, 65_536, multiple=4)]  # channels: what group norm has groups of


def construct(cls: type, values: Mapping[str, Any], place: str) -> Any:
    """The dataclass with these fields, the others as it says; UserError, naming `place`, for what does not fit it."""
    check(cls, values, place)
    return cls(**completed(cls, values))


def check(cls: type, values: Mapping[str, Any], place: str, without: Collection[str] = ()) -> None:
    """Raise UserError for a field that is unknown, missing, or no value of its type; sections within, too."""
    known = _fields(cls, without)
    refuse_unknown(values, known, place)
    missing = [name for name, field in known.items() if name not in values and not _has_default(field)]
    if missing:
        raise UserError(f"{place} lacks {', '.join(missing)}; add it to the config.")
    for name, value in values.items():
        check_value(value, _types(cls)[name], f"{place}.{name}")


def completed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with the defaults of the fields that sections within them lack."""
    out = dict(values)
    for name, section in sections(cls).items():
        if hasattr(out.get(name), "items"):
            out[name] = defaults(section.cls, section.without) | completed(section.cls, out[name])
    return out


def sections(cls: type) -> dict[str, Section]:
    """{field: what it is} of the fields that are sections of their own."""
    marks = {name: getattr(kind, "__metadata__", ()) for name, kind in _types(cls).items()}
    return {name: mark for name, several in marks.items() for mark in several if isinstance(mark, Section)}


def refuse_unknown(values: Collection[str], known: Collection[str], place: str) -> None:
    """Raise UserError for a field that is not among `known`."""
    for field in values:
        if field not in known:
            raise unknown("field", field, known, place)


def defaults(cls: type, without: Collection[str] = ()) -> dict[str, Any]:
    """{field: default} of a dataclass, of those fields that have one."""
    return {
        name: field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore
        for name, field in _fields(cls, without).items()
        if _has_default(field)
    }


def _fields(cls: type, without: Collection[str] = ()) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls) if field.name not in without}


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@functools.cache
def _types(cls: type) -> Mapping[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


# --- a value and its type


def check_value(value: Any, kind: Any, place: str) -> None:
    """Raise UserError unless the value is one of this type."""
    if typing.get_origin(kind) is Annotated:
        inner, *marks = typing.get_args(kind)
        for mark in marks:
            if isinstance(mark, Section):
                _refuse_unless(hasattr(value, "items"), value, "a section of fields", place)
                return check(mark.cls, value, place, mark.without)
        check_value(value, inner, place)
        for mark in marks:
            if isinstance(mark, Within):
                _refuse_unless(value in mark, value, f"a{' whole' * (inner is int)} number {mark}", place)
            elif mark == NOT_EMPTY:
                _refuse_unless(len(value) > 0, value, "at least one value, such as (1,)", place)
            elif mark == PATH and value:
                paths.check(value, place)
    elif typing.get_origin(kind) is tuple:
        _check_tuple(value, typing.get_args(kind), place)
    elif kind in _SIMPLE:
        accepts, name = _SIMPLE[kind]
        _refuse_unless(accepts(value), value, name, place)


def _check_tuple(value: Any, kinds: tuple[Any, ...], place: str) -> None:
    """Raise UserError unless the value is a tuple, or a list, of these types: (T, ...) or one for each item."""
    _refuse_unless(isinstance(value, tuple | list), value, "a list, such as (1,2) or ()", place)
    many = len(kinds) == 2 and kinds[1] is Ellipsis
    _refuse_unless(many or len(value) == len(kinds), value, f"{len(kinds)} values in brackets", place)
    for item, kind in zip(value, kinds[:1] * len(value) if many else kinds, strict=True):
        check_value(item, kind, place)


def _refuse_unless(fits: bool, value: Any, wanted: str, place: str) -> None:
    if not fits:
        raise UserError(f"{place} is {shown(value)}; use {wanted}.")


def shown(value: Any) -> str:
    """A value in a message: all of it, unless it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]} ... {text[-10:]}"


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST_FLOAT <= value <= LARGEST_FLOAT  # no NaN either


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and all(character >= " " for character in value)


_SIMPLE: dict[Any, tuple[Any, str]] = {
    int: (_is_whole, f"a whole number of at most {LARGEST:,}"),
    float: (_is_number, f"a finite number of at most {LARGEST_FLOAT:g}"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (_is_text, f"a text of one line, of at most {LONGEST_TEXT} letters"),
}


def whole(value: Any, place: str, least: int = 0, most: int = LARGEST) -> int:
    """A whole number, NumPy's too, as Python's; UserError for what is none, or not in [least, most]."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not least <= number <= most:
        raise UserError(f"{place} {shown(value)} is no whole number in [{least}, {most}].")
    return number


def check_numbers(owner: Any, place: str, least: Mapping[str, float]) -> None:
    """Raise UserError where one of these fields of `owner` is no number of its type, or less than this."""
    for name, low in least.items():
        value, kind = getattr(owner, name), _types(type(owner))[name]
        fits = _is_whole(value) if kind is int else _is_number(value)
        if not fits or value < low:
            whole = ", a whole number" if kind is int else ""
            raise UserError(f"{place}.{name} is {shown(value)}; use {low:g} or more{whole}.")


def check_count(value: Any, name: str, none: bool = False) -> None:
    """Raise UserError unless a number of images is at least 1, or -1 for all (with `none` also 0 for none)."""
    if not _is_whole(value) or not (value >= 1 or value == -1 or (none and value == 0)):
        raise UserError(f"{name} {shown(value)} must be at least {0 if none else 1}, or -1 for all.")


def refuse_non_finite(value: Any, place: str) -> None:
    """Raise UserError where a number in a value, or in what it is made of, is infinite or none."""
    if hasattr(value, "items"):
        for name, item in value.items():
            refuse_non_finite(item, f"{place}.{name}")
    elif isinstance(value, tuple | list):
        for item in value:
            refuse_non_finite(item, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place} is {value}, no finite number; use one.")
