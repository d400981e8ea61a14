"""One report of a run: what its tasks and its training have left, beside the papers' numbers.

Writes to `<workdir>/report/`: report.html, one page that holds everything and opens offline; report.md and report.json,
which tell the same; and metrics.json. It loads no weights, and shows what is there: the rest is named with its command.
"""

import dataclasses
import json
import logging
import pathlib
from typing import Any

from diffrep_jax.report.collect import collect
from diffrep_jax.report.document import document
from diffrep_jax.report.html import page
from diffrep_jax.report.markdown import markdown
from diffrep_jax.tasks import base
from diffrep_jax.train import provenance

log = logging.getLogger(__name__)

COUNTED = {"pictures": "picture", "missing": "missing"}  # the kinds of blocks that the numbers tell


@dataclasses.dataclass(frozen=True)
class Report:
    """Inside training it is about the previews of its step."""

    needs_run = False

    every_steps: int

    def run(self, method: Any, variables: None, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        tasks = base.names()
        told = document(collect(workdir), type(method).__name__, tasks, provenance.software())
        html = page(told, workdir)
        blocks = [block["kind"] for section in told["sections"] for block in section["blocks"]]
        numbers: dict[str, float] = {name: blocks.count(kind) for name, kind in COUNTED.items()}
        numbers["bytes"] = len(html.encode())
        folder = base.output_folder(workdir, "report")
        (folder / "report.md").write_text(markdown(told, workdir, folder), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(told, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(html, encoding="utf-8")
        base.write_metrics(folder, numbers)
        log.info("%d pictures, %.1f MB; %s", numbers["pictures"], len(html) / 1e6, folder / "report.html")
        return numbers


Task = Report
