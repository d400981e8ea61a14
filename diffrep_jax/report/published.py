"""Published tables, read from published.toml and checked: the numbers as printed, and how each was measured."""

import dataclasses
import functools
import importlib.resources
import tomllib
from collections.abc import Mapping
from typing import Any

from diffrep_jax.errors import UserError, unknown

FILE = "published.toml"
BETTER = ("higher", "lower", "")

Setting = str | int | float | bool


@dataclasses.dataclass(frozen=True)
class Column:
    """One measure of a table.

    Attributes:
      measure: its name in `measured.py`; "" where no task measures it.
      better: "higher", "lower", or "" where neither is.
      settings: how it was measured; compared with ours, name by name.
      remarks: what differs or is unknown whatever our settings are.
      task: the task that measures it, with the overrides for the published data.
    """

    name: str
    measure: str = ""
    better: str = ""
    settings: Mapping[str, Setting] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    task: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, or the part of one whose models were trained on one data set.

    Attributes:
      dataset, image_size: what was trained on; None where that varies. Without a size it is compared with no run.
      rows: {method: one value a column, as printed; "" where none is published}.
      ours: {method: the fields of `config.method` that make a run a run of it}.
      training_images: how many the paper's own models have seen, repeated ones counted again.
    """

    paper: str
    place: str
    title: str
    dataset: str | None
    image_size: int | None
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[str, ...]]
    ours: Mapping[str, Mapping[str, Setting]]
    training_images: float | None


@functools.cache
def tables() -> tuple[Table, ...]:
    """All published tables, in the order of the file."""
    return read(importlib.resources.files("diffrep_jax.report").joinpath(FILE).read_text(encoding="utf-8"))


def number(value: str) -> float:
    """The value of a printed number, such as 49,152 or .650."""
    return float(value.replace(",", ""))


def read(source: str) -> tuple[Table, ...]:
    """The tables of a text like published.toml; raises UserError where it is malformed."""
    try:
        content: Any = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{FILE} cannot be read as TOML: {error}.") from None
    _check(FILE, content, {"protocols": dict, "tables": list})
    protocols = {name: _columns(f"{FILE}, protocol {name}", entry) for name, entry in content["protocols"].items()}
    return tuple(_table(f"{FILE}, table {i}", entry, protocols) for i, entry in enumerate(content["tables"], 1))


def _check(place: str, entry: Any, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> None:
    """required, optional: {field: its type}; other fields are refused."""
    types = {**required, **(optional or {})}
    if not isinstance(entry, dict):
        raise UserError(f"{place}: {entry!r} is no table of fields; give {', '.join(required)}.")
    for field, value in entry.items():
        if field not in types:
            raise unknown("field", field, types, place)
        if type(value) is not types[field]:
            raise UserError(f"{place}: {field}={value!r} must be of the type {types[field].__name__}.")
    absent = [field for field in required if field not in entry]
    if absent:
        raise UserError(f"{place} lacks {', '.join(absent)}; add it.")


def _columns(place: str, protocol: Any) -> tuple[Column, ...]:
    """The columns of a protocol, each with the settings and remarks of all."""
    shared = {"settings": dict, "remarks": list}
    _check(place, protocol, {"columns": list}, shared)
    columns = []
    for i, column in enumerate(protocol["columns"], 1):
        _check(f"{place}, column {i}", column, {"name": str}, shared | {"measure": str, "better": str, "task": list})
        if column.get("better", "") not in BETTER:
            raise unknown("value", column["better"], BETTER, f"{place}, column {i}, better")
        own = {
            "settings": protocol.get("settings", {}) | column.get("settings", {}),
            "remarks": (*protocol.get("remarks", ()), *column.get("remarks", ())),
            "task": tuple(column.get("task", ())),
        }
        columns.append(Column(**column | own))
    return tuple(columns)


def _table(place: str, entry: Any, protocols: Mapping[str, tuple[Column, ...]]) -> Table:
    required = {"paper": str, "title": str, "protocol": str, "rows": list}
    optional = {"place": str, "dataset": str, "image_size": int, "ours": dict, "training_images": float}
    _check(place, entry, required, optional)
    place = f"{place} ({entry['title']})"
    if entry["protocol"] not in protocols:
        raise unknown("protocol", entry["protocol"], protocols, place)
    columns = protocols[entry["protocol"]]
    rows: dict[str, tuple[str, ...]] = {}
    for row in entry["rows"]:
        method, values = _row(place, row, columns)
        if method in rows:
            raise UserError(f"{place}: the row '{method}' is there twice; remove one.")
        rows[method] = values
    for method in entry.get("ours", {}):
        if method not in rows:
            raise unknown("row", method, rows, f"{place}, ours")
    return Table(
        paper=entry["paper"],
        place=entry.get("place", ""),
        title=entry["title"],
        dataset=entry.get("dataset"),
        image_size=entry.get("image_size"),
        columns=columns,
        rows=rows,
        ours=entry.get("ours", {}),
        training_images=entry.get("training_images"),
    )


def _row(place: str, row: Any, columns: tuple[Column, ...]) -> tuple[str, tuple[str, ...]]:
    """A method and its values, each a number as text or "" where none is published."""
    if not isinstance(row, list) or not row or not all(isinstance(value, str) for value in row):
        raise UserError(f'{place}: the row {row!r} is no list of texts; write numbers as text, ".650".')
    method, *values = row
    if len(values) != len(columns):
        raise UserError(
            f"{place}: the row '{method}' has {len(values)} values for {len(columns)} columns; "
            'give one a column, "" where none is published.'
        )
    for value in values:
        try:
            _ = value == "" or number(value)
        except ValueError:
            raise UserError(f"{place}: '{value}' in the row '{method}' is no number; correct it.") from None
    return method, tuple(values)
