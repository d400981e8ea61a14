"""The report as Markdown (tables as GitHub draws them): the same words and numbers; pictures by their paths in the run.

Charts are not drawn; their numbers are in the tables next to them.
"""

import os
import pathlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from diffrep_jax.report.values import text, verdict


def markdown(document: Mapping[str, Any], folder: pathlib.Path, out: pathlib.Path) -> str:
    """The text of a file in the folder `out` about a document whose pictures lie in `folder`."""
    up = os.path.relpath(folder, out)
    parts = [f"# {escape(document['title'])}", escape(document["summary"]), _tiles(document["tiles"])]
    for section in document["sections"]:
        parts.append(f"## {escape(section['title'])}")
        parts += [_DRAW[block["kind"]](block, up) for block in section["blocks"]]
    return "\n\n".join(filter(None, parts)) + "\n"


def escape(words: str) -> str:
    """Text that Markdown and HTML take as it is, on one line."""
    words = re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(words.split()))
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _tiles(tiles: list[dict[str, str]]) -> str:
    return "\n".join(
        f"* {escape(tile['name'])}: **{escape(tile['value'])}** ({escape(tile['note'])})" for tile in tiles
    )


def _table(block: Mapping[str, Any], up: str) -> str:
    rows = [[escape(text(value)) for value in row] for row in block["rows"]]
    for number in block["marked"]:
        rows[number] = [f"**{cell}**" for cell in rows[number]]
    head = [[escape(name) for name in block["columns"]], ["---"] * len(block["columns"])]
    return f"{escape(block['caption'])}\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))


def _values(block: Mapping[str, Any], up: str) -> str:
    rows = block["values"].items()
    return _table({"caption": block["caption"], "columns": ["", "value"], "rows": rows, "marked": []}, up)


def _picture(block: Mapping[str, Any], up: str) -> str:
    place = urllib.parse.quote(pathlib.PurePath(up, block["path"]).as_posix())
    return f"![{escape(block['alt'])}]({place})"


def _protocols(block: Mapping[str, Any], up: str) -> str:
    return "\n".join([*map(_protocol, block["items"]), *(f"* {escape(words)}" for words in block["remarks"])])


def _protocol(item: Mapping[str, Any]) -> str:
    words, why = verdict(item)
    first = f"* **{escape(item['measure'])}** of {escape(item['which'])} ({escape(item['task'])}): "
    listed = "".join(f"\n  * {escape(reason)}" for reason in why)
    return f"{first}{text(item['value'])}, {words}{listed}"


def _missing(block: Mapping[str, Any], up: str) -> str:
    return f"{escape(block['text'])}\n\n{_fenced(block['command'])}"


def _fenced(source: str) -> str:
    longest = max((len(run) for run in re.findall("`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{source}\n{fence}"


_DRAW = {
    "text": lambda block, up: escape(block["text"]),
    "table": _table,
    "facts": _values,
    "bars": _values,
    "chart": lambda block, up: "",
    "picture": _picture,
    "protocols": _protocols,
    "missing": _missing,
    "code": lambda block, up: f"{escape(block['caption'])}\n\n{_fenced(block['text'])}",
}
