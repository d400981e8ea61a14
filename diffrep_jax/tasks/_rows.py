"""The rows of `evaluate`: recipes at numbers of evaluations, and those that an earlier call has measured."""

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from diffrep_jax.errors import UserError
from diffrep_jax.fields import Natural, check, check_value, refuse_unknown
from diffrep_jax.runs.layout import NUMBERS, Run, read_json
from diffrep_jax.samplers.recipe import Sampling
from diffrep_jax.types import Process

log = logging.getLogger(__name__)

VARIED = tuple(field.name for field in dataclasses.fields(Sampling) if field.name != "seed") + ("invert_steps",)
# What tells a line of the report from others; a value that a line lacks is None.
PROTOCOL = (*VARIED, "seed", "dataset", "split", "images", "reconstructions", "interpolate_at")
PLACE = "tasks.evaluate.rows"

Line = dict[str, Any]  # of metrics.json


@dataclasses.dataclass(frozen=True)
class Row:
    """How the images of a line of the report are decoded."""

    how: Sampling
    invert_steps: int

    def described(self) -> Line:
        """The fields of its line, before anything is measured."""
        return dataclasses.asdict(self.how) | {"invert_steps": self.invert_steps}


def parsed(row: Any, usual: Sampling, invert_steps: int) -> Row:
    """A row of the config, a number of steps or {field: value} of what differs; UserError for what is neither."""
    fields = {"steps": row} if isinstance(row, int) else row
    if not hasattr(fields, "keys"):
        raise UserError(f"The row {row!r} of {PLACE} is neither a number of steps nor {{field: value}}.")
    fields = dict(fields)
    refuse_unknown(fields, VARIED, PLACE)
    invert_steps = fields.pop("invert_steps", invert_steps)
    check_value(invert_steps, Natural, f"{PLACE}.invert_steps")
    check(Sampling, fields, PLACE)
    how = dataclasses.replace(usual, **fields)
    return Row(how.returning() if invert_steps else how, invert_steps)


def check_without_steps(row: Any) -> None:
    """Raise UserError for a row that has a number of steps, where those follow from numbers of evaluations."""
    if isinstance(row, int) or "steps" in row:
        raise UserError(f"The row {row!r} of {PLACE} has steps of its own: leave them out, or tasks.evaluate.counts.")


def at_counts(row: Row, counts: Iterable[int], process: Process) -> list[Row]:
    """The row with as many evaluations, or the most that it can make below; each once, those that it can make.

    Raises UserError where it can make none of them.
    """
    coded = row.invert_steps > 0
    recipes = [row.how.within(count, process, coded) for count in counts]
    rows = [Row(how, row.invert_steps) for how in dict.fromkeys(recipes) if how is not None]
    if not rows:
        one = dataclasses.replace(row.how, steps=1)
        raise UserError(
            f"tasks.evaluate.counts {', '.join(map(str, counts))}: the sampler {one.sampler} as it is set makes "
            f"{one.nfe(process, coded=coded)} evaluations at least; ask for more."
        )
    return rows


class Earlier:
    """The report of an earlier call in a run's folder, as far as it is of the same weights.

    Its lines about the same data set and split stay only where they are of the same images by the same method, as far
    as `place` says so: {"dataset", "split", "fingerprint"}. A preview has nothing earlier.
    """

    def __init__(self, run: Run, weights: str | None, place: Mapping[str, Any]):
        self._path = None if run.is_preview else run.folder / "evaluate" / NUMBERS
        self._weights, self._place = weights, place
        report = self.read()
        if report and not self.report:
            log.info("%s is of another state of the network, and is written anew.", self._path)
        elif left := len(self.report.get("rows", [])) - len(self._lines):
            log.info("%d lines of %s are of other images or other settings of the method: left out.", left, self._path)

    def read(self) -> Any:
        """What the file holds now: another process may have added lines to it."""
        report = read_json(self._path, "delete it.") if self._path is not None and self._path.exists() else {}
        kept = isinstance(report, dict) and report.get("weights") == self._weights
        self.report: dict[str, Any] = report if kept else {}
        current = [line for line in self.report.get("rows", []) if is_current(line, self._place)]
        self._lines = {_identity(line): line for line in current}
        return report

    def line(self, wanted: Mapping[str, Any], measures: Iterable[str], most_bad: float) -> Line | None:
        """The line of this protocol, if these measures are in it and no more than `most_bad` unreadable images."""
        line = self._lines.get(_identity(wanted))
        if line is None or line.get("unreadable", 0) > most_bad:
            return None
        known = [name for name, value in line.items() if value is not None] + line.get("not_finite", [])
        return line if set(measures) <= set(known) else None

    def with_others(self, lines: Iterable[Line]) -> list[Line]:
        """The lines, and after them those of other protocols that were there before."""
        own = {_identity(line): line for line in lines}
        return [*own.values(), *(line for identity, line in self._lines.items() if identity not in own)]


def is_current(line: Mapping[str, Any], place: Mapping[str, Any]) -> bool:
    """Whether a line is about other data than those of `place`, or about the very same by the same method."""
    about = [[values.get(name) for name in ("dataset", "split")] for values in (line, place)]
    return about[0] != about[1] or line.get("fingerprint") == place.get("fingerprint")


def _identity(line: Mapping[str, Any]) -> tuple[Any, ...]:
    asked_for = (line.get("images") or 0) + line.get("unreadable", 0)
    return tuple(asked_for if name == "images" else line.get(name) for name in PROTOCOL)
