"""One report of a run: what its tasks and its training have left, next to the papers' numbers.

Writes to `<workdir>/report/`: report.html, one page that holds everything and opens offline; report.md and report.json,
which tell the same; and metrics.json. It loads no weights, and shows what is there: the rest is named with its command.
"""

import dataclasses
import json
import logging
import pathlib
from typing import ClassVar

from diffrep_jax.fields import check_numbers
from diffrep_jax.methods.base import build
from diffrep_jax.report.collect import collect
from diffrep_jax.report.document import document
from diffrep_jax.report.html import page
from diffrep_jax.report.markdown import markdown
from diffrep_jax.runs import provenance
from diffrep_jax.runs.layout import Run, local, write_text
from diffrep_jax.tasks import base

log = logging.getLogger(__name__)

COUNTED = {"pictures": "picture", "missing": "missing"}  # the kinds of blocks that the numbers count


@dataclasses.dataclass(frozen=True)
class Report:
    """Inside training it is about the previews of its step."""

    needs_run: ClassVar[bool] = False

    every_steps: int = 0

    def __post_init__(self):
        check_numbers(self, "tasks.report", {"every_steps": 0})

    def check(self, model: None, run: Run) -> None:
        """As `base.Task.check`: it shows what is there, in a local folder."""
        local(run.folder, "--task=report")

    def run(self, model: None, run: Run) -> dict[str, float]:
        method = type(build(run.config.method)).__name__
        path = local(run.folder, "--task=report")
        content = document(collect(path), method, list(base.names()), provenance.software())
        html = page(content, path)
        blocks = [block["kind"] for section in content["sections"] for block in section["blocks"]]
        numbers: dict[str, float] = {name: blocks.count(kind) for name, kind in COUNTED.items()}
        numbers["bytes"] = len(html.encode())
        folder = run.task_folder("report")
        write_text(folder / "report.md", markdown(content, path, pathlib.Path(folder)))
        write_text(folder / "report.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
        write_text(folder / "report.html", html)
        run.write_numbers("report", numbers)
        log.info("%d pictures, %.1f MB; %s", numbers["pictures"], len(html) / 1e6, folder / "report.html")
        return numbers


Task = Report
