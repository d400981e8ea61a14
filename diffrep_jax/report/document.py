"""The report as one dict of plain values: JSON holds it, HTML and Markdown draw it."""

import dataclasses
from collections.abc import Collection
from typing import Any

from diffrep_jax.report import run_sections, task_sections
from diffrep_jax.report.collect import Run
from diffrep_jax.report.measured import measured
from diffrep_jax.report.values import clean, duration, text


def document(run: Run, method: str, tasks: Collection[str], software: dict[str, Any]) -> dict[str, Any]:
    """{"title", "summary", "tiles": [{"name", "value", "note"}], "sections", "measured", "run"}.

    The last two are for programs: each number that a paper might have too with its settings, and what the run is.

    method: its name; tasks: those that there are; software: see `train.provenance`. For the blocks see `blocks.py`.
    """
    config = run.config
    size = config["data"]["image_size"]
    sections = [
        run_sections.papers_section(run, tasks),
        *task_sections.picture_sections(run, tasks),
        task_sections.probe_section(run),
        task_sections.quality_section(run, tasks),
        run_sections.curves_section(run),
        run_sections.provenance_section(run, software),
        run_sections.config_section(run),
        run_sections.other_papers_section(run),
    ]
    where = run.root.absolute().name + (f", {run.folder.name}" if run.folder != run.root else "")
    return clean(
        {
            "title": f"{where}: {method} on {config['data']['name']}, {size} x {size}",
            "summary": f"A run of diffrep_jax at step {run.step:,}. Tasks use the averaged weights.",
            "tiles": _tiles(run),
            "sections": sections,
            "measured": [dataclasses.asdict(one) for one in measured(run)],
            "run": {
                "folder": str(run.folder),
                "step": run.step,
                "seconds": run.seconds,
                "training_images": run.training_images,
                "starts": run.starts,
                "config": config,
                "report_made_with": software,
            },
        }
    )


def _tiles(run: Run) -> list[dict[str, str]]:
    """The numbers that a reader looks for first."""
    reconstructed = run.metrics.get("reconstruct", {})
    tiles = [
        ("reconstruction MSE", reconstructed.get("mse"), _images(reconstructed)),
        ("reconstruction SSIM", reconstructed.get("ssim"), _images(reconstructed)),
    ]
    for dataset, probed in run.probes.items():
        for part, measure in (("classes", "ap"), ("attributes", "ap"), ("attributes", "r"), ("measures", "r")):
            value = probed.get(f"{part}_{measure}")
            tiles.append((f"{part}, {task_sections.WORDS[measure]}", value, f"probe of {dataset}"))
    device = " + ".join(dict.fromkeys(f"{start['devices']} x {start['device']}" for start in run.starts))
    shown = [{"name": name, "value": text(value), "note": note} for name, value, note in tiles if value is not None]
    seen = {"name": "training steps", "value": text(run.step), "note": f"{run.training_images:,} images"}
    took = {"name": "wall time of training", "value": duration(run.seconds), "note": device or "device not recorded"}
    return [*shown, seen, took]


def _images(report: dict[str, Any]) -> str:
    if not report:
        return ""
    start = ", x_T inferred" if report.get("invert_steps") else ""
    return f"{text(report.get('images'))} images, {report.get('evaluations')} evaluations{start}"
