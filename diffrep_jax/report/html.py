"""The report as one web page: nothing is loaded, no script; the look is in page.html."""

import importlib.resources
import pathlib
import string
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from diffrep_jax.report.charts import line_chart, style
from diffrep_jax.report.embed import Embedded, embed
from diffrep_jax.report.values import text, verdict

PICTURE_BYTES = 2_000_000  # of all pictures; as text they take a third more, so that a page stays below 3 MB

MANY_BARS = 16  # from here on they take the whole width, in columns

Pictures = Mapping[pathlib.Path, Embedded]


def page(document: Mapping[str, Any], folder: pathlib.Path) -> str:
    """The page of a document whose pictures lie in `folder`."""
    blocks = [block for section in document["sections"] for block in section["blocks"]]
    pictures = embed([folder / block["path"] for block in blocks if block["kind"] == "picture"], PICTURE_BYTES)
    template = importlib.resources.files("diffrep_jax.report").joinpath("page.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(
        title=escape(document["title"]),
        summary=escape(document["summary"]),
        tiles="".join(map(_tile, document["tiles"])),
        links="".join(f'<a href="#{escape(s["name"])}">{escape(s["title"])}</a>' for s in document["sections"]),
        sections="\n".join(_section(section, folder, pictures) for section in document["sections"]),
    )


def _tile(tile: Mapping[str, str]) -> str:
    name, value, note = (escape(tile[key]) for key in ("name", "value", "note"))
    return f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>"


def _section(section: Mapping[str, Any], folder: pathlib.Path, pictures: Pictures) -> str:
    title, name = escape(section["title"]), escape(section["name"], quote=True)
    body = "\n".join(_joined(section["blocks"], folder, pictures))
    if section["folded"]:
        body = f"<details><summary><h2>{title}</h2></summary>\n{body}\n</details>"
    else:
        body = f"<h2>{title}</h2>\n{body}"
    return f'<section id="{name}">\n{body}\n</section>'


def _joined(blocks: list[dict[str, Any]], folder: pathlib.Path, pictures: Pictures) -> Iterator[str]:
    """The blocks as HTML; charts and bars that follow each other stand in one row where there is room."""
    open_row = False
    for block in blocks:
        small = block["kind"] in ("chart", "bars")
        if small != open_row:
            yield '<div class="row">' if small else "</div>"
            open_row = small
        if block["kind"] == "picture":
            yield _picture(block, pictures[folder / block["path"]])
        else:
            yield _DRAW[block["kind"]](block)
    if open_row:
        yield "</div>"


def _picture(block: Mapping[str, Any], picture: Embedded) -> str:
    alt, path = escape(block["alt"], quote=True), escape(block["path"])
    note = f"Reduced to fit this page; the whole picture is <code>{path}</code>." if picture.reduced else ""
    image = f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{alt}">'
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{alt}">{image}</div>'
        f"<figcaption>{escape(block['alt'])} {note}</figcaption></figure>"
    )


def _table(block: Mapping[str, Any]) -> str:
    columns = range(len(block["columns"]))
    numeric = [all(not isinstance(row[i], str) for row in block["rows"]) for i in columns]
    head = "".join(
        f'<th scope="col"{_numeric(numeric[i])}>{escape(name)}</th>' for i, name in enumerate(block["columns"])
    )
    rows = []
    for number, row in enumerate(block["rows"]):
        mark = ' class="ours"' if number in block["marked"] else ""
        cells = "".join(
            f"<td{_numeric(numeric[i] or not isinstance(value, str))}>{escape(text(value))}</td>"
            for i, value in enumerate(row)
            if i > 0
        )
        rows.append(f'<tr{mark}><th scope="row">{escape(text(row[0]))}</th>{cells}</tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    caption = escape(block["caption"], quote=True)
    return (
        f'<figure><figcaption>{caption}</figcaption><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{caption}">{table}</div></figure>'
    )


def _numeric(yes: bool) -> str:
    return ' class="n"' if yes else ""


def _facts(block: Mapping[str, Any]) -> str:
    pairs = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(text(v))}</dd></div>" for n, v in block["values"].items())
    return f'<p class="caption">{escape(block["caption"])}</p><dl class="facts">{pairs}</dl>'


def _bars(block: Mapping[str, Any]) -> str:
    rows = []
    for name, value in block["values"].items():
        part = 0 if value is None else max(0.0, min(1.0, value / block["full"]))
        bar = f'<i aria-hidden="true"><i style="width:{100 * part:.1f}%"></i></i>'
        rows.append(f"<li><span>{escape(name)}</span> {bar} <b>{text(value)}</b></li>")
    many = " many" if len(rows) > MANY_BARS else ""
    longest = max(map(len, block["values"]), default=1)
    caption = f"<figcaption>{escape(block['caption'])}</figcaption>"
    return f'<figure class="bars{many}">{caption}<ul style="--name:{longest}">{"".join(rows)}</ul></figure>'


def _chart(block: Mapping[str, Any]) -> str:
    names = list(block["lines"])
    keys = "".join(f'<span class="key {style(i)}">{escape(name)}</span>' for i, name in enumerate(names))
    legend = f"<br>{keys}" if len(names) > 1 else ""
    logs = [axis for axis in ("x", "y") if block[f"log_{axis}"]]
    scale = f" (logarithmic {' and '.join(logs)})" if logs else ""
    scale += ", what is worse on the edge" if block.get("within") else ""
    return f"<figure>{line_chart(block)}<figcaption>{escape(block['caption'] + scale)}{legend}</figcaption></figure>"


def _protocols(block: Mapping[str, Any]) -> str:
    remarks = "".join(f"<li>{escape(words)}</li>" for words in block["remarks"])
    listed = f"{''.join(map(_protocol, block['items']))}{remarks}"
    return f'<ul class="protocols">{listed}</ul>' if listed else ""


def _protocol(item: Mapping[str, Any]) -> str:
    words, why = verdict(item)
    sign = {True: "yes", False: "no", None: "unknown"}[item["same"]]
    which = f"<b>{escape(item['measure'])}</b> of {escape(item['which'])} ({escape(item['task'])})"
    listed = "".join(f"<li>{escape(reason)}</li>" for reason in why)
    return f'<li>{which}: {text(item["value"])}, <em class="{sign}">{words}</em><ul>{listed}</ul></li>'


def _missing(block: Mapping[str, Any]) -> str:
    return f'<p class="missing">{escape(block["text"])} <code>{escape(block["command"])}</code></p>'


def _code(block: Mapping[str, Any]) -> str:
    return f'<pre class="scroll" tabindex="0" aria-label="{escape(block["caption"])}">{escape(block["text"])}</pre>'


_DRAW = {
    "text": lambda block: f"<p>{escape(block['text'])}</p>",
    "table": _table,
    "facts": _facts,
    "bars": _bars,
    "chart": _chart,
    "protocols": _protocols,
    "missing": _missing,
    "code": _code,
}
