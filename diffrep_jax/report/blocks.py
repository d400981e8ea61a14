"""What a report is made of: blocks, dicts of plain values that JSON holds and that HTML and Markdown draw.

A value in a table is a number, a string, a boolean, a list of them, None, or a published number {"value", "text": as it
is printed}.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from diffrep_jax.report.collect import Run

Block = dict[str, Any]


def section(name: str, title: str, blocks: Iterable[Block], folded: bool = False) -> Block:
    """name: of the link to it; folded: closed until a reader opens it."""
    return {"name": name, "title": title, "folded": folded, "blocks": list(blocks)}


def paragraph(words: str) -> Block:
    return {"kind": "text", "text": words}


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], marked: Iterable[int] = ()) -> Block:
    """marked: the numbers of the rows that stand out."""
    return {
        "kind": "table",
        "caption": caption,
        "columns": list(columns),
        "rows": [list(row) for row in rows],
        "marked": list(marked),
    }


def facts(caption: str, values: Mapping[str, Any]) -> Block:
    return {"kind": "facts", "caption": caption, "values": dict(values)}


def bars(caption: str, values: Mapping[str, float | None], full: float) -> Block:
    """full: the number whose bar is the longest that there is room for."""
    return {"kind": "bars", "caption": caption, "values": dict(values), "full": full}


def chart(
    caption: str,
    x: str,
    y: str,
    lines: Mapping[str, Any],
    log_x: bool = False,
    log_y: bool = False,
    dots: bool = False,
    within: tuple[float, float] | None = None,
) -> Block:
    """lines: {name: [[x, y], ...]}; dots: mark the points; within: y's that are drawn, those outside on the edge."""
    axes = {"x": x, "y": y, "log_x": log_x, "log_y": log_y, "within": within and list(within)}
    return {"kind": "chart", "caption": caption, "lines": dict(lines), "dots": dots} | axes


def picture(path: str, alt: str) -> Block:
    """path: relative to the folder that the report is about."""
    return {"kind": "picture", "path": path, "alt": alt}


def protocols(items: Iterable[Mapping[str, Any]], remarks: Iterable[str]) -> Block:
    """items: how each number was measured, see `compare.py`; remarks: what holds for all of a table."""
    return {"kind": "protocols", "items": list(items), "remarks": list(remarks)}


def missing(what: str, run: Run, task: str, *overrides: str) -> Block:
    """What is not there, and the command that makes it."""
    command = ["python", "launch/main.py", f"--workdir={run.root}", f"--task={task}", *overrides]
    return {"kind": "missing", "text": what, "command": shlex.join(command)}


def code(caption: str, source: str) -> Block:
    return {"kind": "code", "caption": caption, "text": source}
