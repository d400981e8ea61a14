"""The sections of the run itself: its curves, its origin, its config; and the comparison with the papers' tables."""

import json
import time
from collections.abc import Collection, Iterator
from typing import Any

from diffrep_jax.report import blocks, compare, published
from diffrep_jax.report.blocks import Block
from diffrep_jax.report.collect import Run
from diffrep_jax.report.measured import measured
from diffrep_jax.report.values import NONE, duration

POINTS = 300  # of a curve in the report; longer ones are drawn by the means of equal parts
WIDE = 10.0  # largest over smallest value from which on a curve has a logarithmic axis


def curves_section(run: Run) -> Block:
    return blocks.section("training", "Training curves", _curves(run))


def _curves(run: Run) -> Iterator[Block]:
    curves = {name: line for name, line in run.curves.items() if not name.startswith("report/")}
    if not curves:
        yield blocks.paragraph("metrics.jsonl has no lines: this run was not trained here.")
        return
    rows = []
    for name, line in sorted(curves.items(), key=lambda item: ("/" in item[0], item[0] != "loss", item[0])):
        values = [value for _, value in line]
        rows.append([name, len(line), line[0][0], values[0], line[-1][0], values[-1], min(values), max(values)])
        if len(line) > 1 and min(values) < max(values):
            log = min(values) > 0 and max(values) > WIDE * min(values)
            yield blocks.chart(name, "step", name, {name: thinned(line)}, log_y=log)
    columns = ("curve", "points", "first step", "value there", "last step", "value there", "lowest", "highest")
    yield blocks.table(f"Curves of metrics.jsonl; those of more than {POINTS} points are drawn thinned", columns, rows)


def thinned(line: list[list[float]]) -> list[list[float]]:
    """At most POINTS points: each the mean of an equal share of them."""
    if len(line) <= POINTS:
        return line
    bounds = [round(i * len(line) / POINTS) for i in range(POINTS + 1)]
    parts = [line[low:high] for low, high in zip(bounds[:-1], bounds[1:], strict=True)]
    return [[sum(column) / len(part) for column in zip(*part, strict=True)] for part in parts]


def papers_section(run: Run, tasks: Collection[str]) -> Block:
    """tasks: those that there are."""
    return blocks.section("papers", "Compared with the papers", _papers(run, tasks))


def _papers(run: Run, tasks: Collection[str]) -> Iterator[Block]:
    data = run.config["data"]
    size = f"{data['image_size']} x {data['image_size']}"
    tables = compare.fitting(run)
    if not any(table.dataset for table in tables):
        yield blocks.paragraph(
            f"There are no published numbers for models of {data['name']} at {size}. Our own are in the sections "
            "below, the papers' for other data at the end."
        )
    numbers = measured(run)
    for table in tables:
        compared = compare.comparison(table, run, numbers)
        yield from (compared["table"], compared["protocols"])
        for task in dict.fromkeys(column.task for column in compared["missing"]):
            names = ", ".join(column.name for column in compared["missing"] if column.task == task)
            if task and task[0] in tasks:
                yield blocks.missing(f"{names}: not measured.", run, *task)
            else:
                yield blocks.paragraph(f"{names}: not measured.")


def other_papers_section(run: Run) -> Block:
    """The published tables that this run is not compared with."""
    tables = [table for table in published.tables() if table not in compare.fitting(run)]
    rows = [[[method, *map(compare.printed, values)] for method, values in table.rows.items()] for table in tables]
    shown = [compare.block(table, own) for table, own in zip(tables, rows, strict=True)]
    return blocks.section("published", "Published numbers for other data", shown, folded=True)


def provenance_section(run: Run, software: dict[str, Any] | None) -> Block:
    """software: what the report is made with; None to leave that out."""
    return blocks.section("provenance", "What made it", _provenance(run, software))


def _provenance(run: Run, software: dict[str, Any] | None) -> Iterator[Block]:
    config = run.config
    if run.starts:
        columns = ("began (UTC)", "from step", "device", "processes", "wall time", "commit", "jax", "flax", "python")
        yield blocks.table("Starts of the training", columns, [_start(start) for start in run.starts])
    else:
        yield blocks.paragraph("When, where and with which code it was trained was not recorded (no run.json).")
    if "import" in run.metrics:
        yield blocks.facts("Imported", {"from": run.metrics["import"].get("source")})
    yield blocks.facts(
        "In short",
        {
            "data": f"{config['data']['name']}, split {config['data']['split']}",
            "image size": config["data"]["image_size"],
            "steps": run.step,
            "batch size": config["train"]["batch_size"],
            "training images, repeated ones counted": run.training_images,
            "wall time of training": duration(run.seconds),
            "seed": config["seed"],
        },
    )
    if software is not None:
        yield blocks.facts("The report was made with", {"commit": commit(software), **software["versions"]})


def _start(start: dict[str, Any]) -> list[Any]:
    versions = start["versions"]
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(start["began"]))
    device = f"{start['devices']} x {start['device']}"
    made = [versions.get(name) for name in ("jax", "flax", "python")]
    seconds = duration(start["seconds"])
    return [began, start["from_step"], device, start["processes"], seconds, commit(start), *made]


def commit(software: dict[str, Any]) -> str:
    """The first digits of the commit, and whether the files differ from it; a dash where there is none."""
    if software["commit"] is None:
        return f"{NONE} (no git checkout)"
    return software["commit"][:12] + (" and changes" if software["modified"] else "")


def config_section(run: Run) -> Block:
    text = json.dumps(run.config, indent=2)
    return blocks.section("config", "Config", [blocks.code("config.json", text)], folded=True)
