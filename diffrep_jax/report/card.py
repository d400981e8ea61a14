"""A model card: what a file of weights is, how it is opened, and what the run's tasks have measured."""

import pathlib
from collections.abc import Mapping
from typing import Any

from diffrep_jax.report import blocks, run_sections, task_sections
from diffrep_jax.report.blocks import Block
from diffrep_jax.report.collect import Run
from diffrep_jax.report.markdown import markdown

FRONT = """---
library_name: diffrep_jax
tags:
- diffusion
- representation-learning
---

"""
LEFT_OUT = ("picture", "missing", "chart")  # blocks that need the run's folder


def card(run: Run, method: str, address: str, facts: Mapping[str, Any]) -> str:
    """Markdown with the front matter of the Hugging Face Hub.

    method: its name; address: what `diffrep_jax.load` opens; facts: about the file of weights.
    """
    data = run.config["data"]
    size = f"{data['image_size']} x {data['image_size']}"
    opening = f'import diffrep_jax\n\nmodel = diffrep_jax.load("{address}")'
    measured = [
        *task_sections.picture_sections(run, ()),
        task_sections.probe_section(run),
        task_sections.quality_section(run, ()),
    ]
    sections = [
        blocks.section("file", "The file", [blocks.code("It opens with", opening), blocks.facts("What it is", facts)]),
        *filter(None, map(_of_figures, measured)),
        run_sections.provenance_section(run, None),
    ]
    document = {
        "title": f"{method} on {data['name']}, {size}",
        "summary": f"Averaged weights of a run of diffrep_jax at step {run.step:,}.",
        "tiles": [],
        "sections": sections,
    }
    return FRONT + markdown(document, pathlib.Path(), pathlib.Path())


def _of_figures(section: Block) -> Block | None:
    """The section without what needs the run's folder; None where nothing measured is left."""
    kept = [block for block in section["blocks"] if block["kind"] not in LEFT_OUT]
    if all(block["kind"] == "text" for block in kept):
        return None
    return section | {"blocks": kept}
