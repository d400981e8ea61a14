"""A run's numbers and the papers': the tables that fit the run, and where its protocol differs from theirs."""

import math
from collections.abc import Iterable
from typing import Any

from diffrep_jax.report import blocks, published
from diffrep_jax.report.collect import Run
from diffrep_jax.report.measured import AS_PUBLISHED, THIS, WAYS, Measured
from diffrep_jax.report.published import Column, Table
from diffrep_jax.report.values import text

WORDS = {  # what a setting is called, where its name does not say it
    "dataset": "data set",
    "epochs": "epochs of the linear head",
    "lr": "learning rate of the linear head",
    "epoch_from": "split that picks the epoch",
    "latent_dim": "size of the code",
    "churn_step_ratio": "churn",
    "window": "window of the SSIM",
}
ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}
ALMOST = 0.05  # the papers round how many images were seen


def fitting(run: Run) -> list[Table]:
    """The published tables of models of the run's data and size."""
    data = run.config["data"]
    sized = [table for table in published.tables() if table.image_size == data["image_size"]]
    return [table for table in sized if table.dataset in (None, data["name"])]


def comparison(table: Table, run: Run, measured: Iterable[Measured]) -> dict[str, Any]:
    """{"table": a block, "protocols": a block on how each measure was taken, "missing": columns that were not}."""
    candidates = list(measured)
    rows = [[method, *map(printed, values)] for method, values in table.rows.items()]
    marked = [i for i, method in enumerate(table.rows) if _is_same_method(table, method, run)]
    taken: list[tuple[Column, Measured | None]] = []
    for way in WAYS:
        chosen = [(column, _closest(column, [m for m in candidates if m.way == way])) for column in table.columns]
        if way == AS_PUBLISHED:  # only where its protocol is nearer to the paper's than our own is
            chosen = [
                (column, _nearer(column, one, ours)) for (column, one), (_, ours) in zip(chosen, taken, strict=True)
            ]
        if way == THIS or any(one for column, one in chosen if column.better):
            marked.append(len(rows))
            rows.append([way, *(one and one.value for _, one in chosen)])
            taken += chosen
    return {
        "table": block(table, rows, marked),
        "protocols": _protocols(table, run, taken),
        "missing": [column for column, one in taken[: len(table.columns)] if column.measure and one is None],
    }


def block(table: Table, rows: list[list[Any]], marked: Iterable[int] = ()) -> dict[str, Any]:
    """A table block; marked rows are ours, and those of the same method."""
    names = ["method", *(f"{column.name}{ARROWS[column.better]}" for column in table.columns)]
    caption = ": ".join(filter(None, (", ".join(filter(None, (table.paper, table.place))), table.title)))
    return blocks.table(caption, names, rows, marked)


def printed(value: str) -> dict[str, Any] | None:
    """A number with its text as the paper prints it; None where none is published."""
    if not value:
        return None
    return {"value": published.number(value), "text": f"0{value}" if value.startswith(".") else value}


def _closest(column: Column, candidates: Iterable[Measured]) -> Measured | None:
    """The one whose settings differ least from the published ones."""
    own = [one for one in candidates if column.measure and one.measure == column.measure]
    return min(own, key=lambda one: (len(differences(column, one)), _distance(column, one)), default=None)


def _distance(column: Column, ours: Measured) -> float:
    """How far the numbers among our settings are from the published ones, by ratio."""
    pairs = [(ours.settings[name], theirs) for name, theirs in column.settings.items() if name in ours.settings]
    numbers = [pair for pair in pairs if all(isinstance(x, int | float) and x > 0 for x in pair)]
    return sum(abs(math.log(here / theirs)) for here, theirs in numbers)


def _nearer(column: Column, one: Measured | None, ours: Measured | None) -> Measured | None:
    """`one` if fewer of its settings differ from the paper's than of ours."""
    return one if one and ours and len(differences(column, one)) < len(differences(column, ours)) else None


def differences(column: Column, ours: Measured) -> list[str]:
    """Where our settings differ from those that are published, in words."""
    sentences = []
    for name, theirs in column.settings.items():
        here = text(ours.settings[name]) if name in ours.settings else "not recorded"
        if name not in ours.settings or not _equal(ours.settings[name], theirs):
            sentences.append(f"{WORDS.get(name, name)}: {here} here, {text(theirs)} in the paper")
    return sentences


def _equal(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs


def _protocols(table: Table, run: Run, taken: Iterable[tuple[Column, Measured | None]]) -> dict[str, Any]:
    pairs = [(column, one) for column, one in taken if one and column.better]
    remarks = dict.fromkeys(remark for column, _ in pairs for remark in column.remarks)
    return blocks.protocols([_protocol(table, column, one, run) for column, one in pairs], remarks)


def _protocol(table: Table, column: Column, ours: Measured, run: Run) -> dict[str, Any]:
    """`same` is None where nothing is known to compare with."""
    differing = differences(column, ours)
    seen = run.training_images
    if table.training_images and not math.isclose(seen, table.training_images, rel_tol=ALMOST):
        differing.append(f"training images: {seen:,} here, {table.training_images:,.0f} for the paper's own models")
    return {
        "measure": column.name,
        "which": ours.way,
        "value": ours.value,
        "task": ours.task,
        "settings": ours.settings,
        "same": not differing if column.settings else None,
        "compared": [WORDS.get(name, name) for name in column.settings],
        "differences": differing,
    }


def _is_same_method(table: Table, method: str, run: Run) -> bool:
    """Whether the run's method is the one of a row."""
    fields, own = table.ours.get(method), run.config["method"]
    return fields is not None and all(name in own and own[name] == value for name, value in fields.items())
