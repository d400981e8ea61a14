"""The sections of what the tasks have made: pictures and numbers, probes, quality against evaluations."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from diffrep_jax.report import blocks
from diffrep_jax.report.blocks import Block
from diffrep_jax.report.collect import Run
from diffrep_jax.report.recipes import in_words

# Of these a report says how they are made, where they are missing; others are shown where they are there.
PICTURES = {
    "reconstruct": "Reconstruction",
    "interpolate": "Interpolation",
    "manipulate": "Manipulation",
    "counterfactual": "Counterfactuals",
    "sample": "Samples",
}
LATER = ("probe", "evaluate")  # have sections of their own
NOT_SHOWN = ("report", "export", "import", "prepare")

ALT = {
    "reconstruct/grid.png": "Held-out images, what decoding starts from, and what comes back.",
    "interpolate/strip.png": "From one held-out image to another, decoded from the codes between theirs.",
    "interpolate/interpolation.gif": "The walk from one image to the other and back, animated.",
    "manipulate/grid.png": "Images whose codes were moved along the direction of an attribute.",
    "counterfactual/grid.png": "Images with a part of another image's code in the place of their own.",
    "sample/grid.png": "New images, decoded from codes that were drawn.",
    "inspect_data/contact_sheet.png": "Images as the model sees them, evenly spaced over the data set.",
    "reconstruct/prefixes.png": "Held-out images decoded from the first blocks of their codes alone.",
    "reconstruct/prefixes_curve.png": "The error of images by the number of blocks that they are decoded from.",
    "timesteps/loss.png": "The loss by time-step, with an image's own code, another's and none.",
    "timesteps/eps.png": "The error of the noise by time-step, with an image's own code, another's and none.",
    "timesteps/denoised.png": "Noised images, and what one step makes of them without and with the code.",
}

QUALITY = ("mse", "psnr", "ssim", "lpips", "fid", "fid_interpolation")
GENERATED = ("fid", "precision", "recall", "inception_score")
FIRST = ("sampler", "steps", "evaluations", "mse", "psnr", "ssim", "ssim_official", "lpips", *GENERATED)  # in tables
UNSHOWN = ("fingerprint",)  # for programs
LOWER = ("mse", "lpips", "fid", "fid_interpolation")
SHOWN = {"psnr": 10.0, "ssim": 0.2}  # of a curve, below the best value


def picture_sections(run: Run, tasks: Collection[str]) -> Iterator[Block]:
    """A section for each task that draws; `tasks`: those that there are."""
    others = [task for task in run.metrics if task not in (*PICTURES, *LATER, *NOT_SHOWN)]
    for task in [*PICTURES, *others]:
        title = PICTURES.get(task, task.replace("_", " ").capitalize())
        if task in run.metrics:
            yield blocks.section(task, title, _of_task(run, task))
        elif task in PICTURES and task in tasks:
            yield blocks.section(task, title, [blocks.missing(f"{title}: not made yet.", run, task)])


def _of_task(run: Run, task: str) -> Iterator[Block]:
    yield from _earlier(run, task, task)
    for path in run.pictures[task]:
        yield blocks.picture(path, ALT.get(path, f"{path}, a picture of --task={task}."))
    yield from _numbers(f"Numbers of --task={task}", run.metrics[task])


def _earlier(run: Run, name: str, task: str, *overrides: str) -> Iterator[Block]:
    """A warning where the numbers of `name`, as in `Run.earlier`, are not of the newest checkpoint."""
    if name in run.earlier:
        yield blocks.missing("Written before the newest checkpoint. To make it of that one:", run, task, *overrides)


def _numbers(caption: str, values: Mapping[str, Any]) -> Iterator[Block]:
    """The single values together; each dict, and each list of dicts as a table, by itself."""
    single = {name: value for name, value in values.items() if name not in UNSHOWN and _is_single(value)}
    if single:
        yield blocks.facts(caption, single)
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{caption}: {name}", value)
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            yield _rows(f"{caption}: {name}", value)


def _rows(caption: str, rows: list[dict[str, Any]]) -> Block:
    """A table of dicts: a column for each single value that any of them has, those of FIRST before the others."""
    columns = dict.fromkeys(
        key
        for row in rows
        for key, value in row.items()
        if key not in UNSHOWN and value is not None and _is_single(value)
    )
    order = [key for key in FIRST if key in columns] + [key for key in columns if key not in FIRST]
    return blocks.table(caption, order, [[row.get(key) for key in order] for row in rows])


def _is_single(value: Any) -> bool:
    return not isinstance(value, dict | list) or (isinstance(value, list) and not any(map(_has_parts, value)))


def _has_parts(value: Any) -> bool:
    return isinstance(value, dict | list)


def probe_section(run: Run) -> Block:
    title = "What a linear layer reads off the codes"
    if not run.probes:
        return blocks.section("probe", title, [blocks.missing("Probes: not made yet.", run, "probe")])
    shown = [block for dataset, report in run.probes.items() for block in _probe(run, dataset, report)]
    return blocks.section("probe", title, shown)


WORDS = {"ap": "average precision", "r": "Pearson's r", "mse": "mean squared error"}


def _probe(run: Run, dataset: str, report: Mapping[str, Any]) -> Iterator[Block]:
    yield from _earlier(run, f"probe/{dataset}", "probe", f"--config.tasks.probe.dataset={dataset}")
    parts = [part for part in ("classes", "attributes", "measures") if part in report]
    rows = [
        [part, WORDS.get(measure, measure), value, report[part]["epoch"], official, report[part]["official"]["epoch"]]
        for part in parts
        for measure, value in report[part]["mean"].items()
        for official in [report[part]["official"]["mean"][measure]]
    ]
    columns = ("of", "measure", "mean", "epoch", "as the official code", "its epoch")
    caption = (
        f"{dataset}: linear heads on frozen codes, the epoch picked on validation images; and heads trained as the "
        "papers' code trains them, the epoch picked on the test images"
    )
    yield blocks.table(caption, columns, rows)
    for part in parts:
        for measure, values in report[part]["each"].items():
            known = [abs(value) for value in values.values() if value is not None]
            full = 1.0 if measure in ("ap", "r") else max(known, default=0.0) or 1.0
            yield blocks.bars(f"{dataset}: {WORDS.get(measure, measure)} of each of the {part}", values, full)
    shown = {key: value for key, value in report.items() if key not in parts and _is_single(value)}
    images = {f"{split} images": count for split, count in report.get("images", {}).items()}
    images |= {f"official code, {name}": value for name, value in report.get("official_images", {}).items()}
    yield blocks.facts(f"{dataset}: numbers of --task=probe", shown | images)


def quality_section(run: Run, tasks: Collection[str]) -> Block:
    """Quality against number of evaluations, from --task=evaluate; what it could not measure, and why."""
    title = "Quality against number of evaluations"
    report = run.metrics.get("evaluate")
    if report is None and "evaluate" in tasks:
        shown = [blocks.missing("Quality against evaluations: not measured yet.", run, "evaluate")]
    elif report is None:
        shown = [blocks.paragraph("This version has no task that measures it.")]
    else:
        shown = [*_earlier(run, "evaluate", "evaluate"), *_quality(report)]
    return blocks.section("quality", title, shown)


def _quality(report: Mapping[str, Any]) -> Iterator[Block]:
    decoded = [row for row in report.get("rows", []) if row.get("evaluations") is not None]  # not read from files
    for measure in QUALITY:
        lines: dict[str, list[list[float]]] = {}
        for row in decoded:
            if row.get(measure) is not None:
                lines.setdefault(in_words(row, decoded), []).append([row["evaluations"], row[measure]])
        if lines:
            lines = {name: sorted(points) for name, points in lines.items()}
            values = [y for points in lines.values() for _, y in points]
            scale = {"log_y": measure in LOWER and min(values) > 0, "within": _within(measure, values)}
            yield blocks.chart(measure, "evaluations", measure, lines, log_x=True, dots=True, **scale)
    for name, caption in (("rows", "Reconstructions"), ("generated", "Generated images")):
        if report.get(name):
            yield _rows(f"{caption}, numbers of --task=evaluate", report[name])
    for measure, why in (report.get("missing") or {}).items():
        yield blocks.paragraph(f"{measure}: not measured. {why}")
    if report.get("disentanglement"):
        yield from _numbers("Disentanglement", report["disentanglement"])


def _within(measure: str, values: Sequence[float]) -> tuple[float, float] | None:
    """The part of an axis that is drawn where values are far worse than the best: ten times as much, or SHOWN less."""
    low, high = min(values), max(values)
    if measure in LOWER:
        return (low, 10 * low) if high > 10 * low > 0 else None
    return (high - SHOWN[measure], high) if low < high - SHOWN[measure] else None
