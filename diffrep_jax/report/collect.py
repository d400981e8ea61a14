"""Read a run's folder: its config, the numbers and pictures of its tasks, its training curves, what made it."""

import dataclasses
import json
import pathlib
from typing import Any

from diffrep_jax.errors import UserError
from diffrep_jax.report.values import clean
from diffrep_jax.runs import provenance
from diffrep_jax.runs.layout import CHECKPOINTS, CONFIG, CURVES, NUMBERS, PREVIEWS

PICTURES = (".png", ".gif")
NO_CURVES = ("step", "time")


@dataclasses.dataclass(frozen=True)
class Run:
    """What lies in a run's folder; all values are such as JSON holds.

    Attributes:
      root: the run; folder: where its tasks have written, the same, or a folder of its previews.
      config: the run's config.json.
      metrics, pictures: {task: its metrics.json}, {task: its pictures, relative to `folder`}.
      probes: {data set: the probe's metrics on it}.
      earlier: the tasks, and probes as probe/<data set>, whose metrics were written before the newest checkpoint.
      curves: {name: [[step, value], ...]} of metrics.jsonl.
      step: of the newest checkpoint, or of the preview.
      starts: the entries of run.json, each with "seconds" from the start to the last line before the next one.
    """

    root: pathlib.Path
    folder: pathlib.Path
    config: dict[str, Any]
    metrics: dict[str, dict[str, Any]]
    pictures: dict[str, list[str]]
    probes: dict[str, dict[str, Any]]
    earlier: frozenset[str]
    curves: dict[str, list[list[float]]]
    step: int
    starts: list[dict[str, Any]]

    @property
    def seconds(self) -> float | None:
        """How long the run has trained, from its starts to the last lines; None where that was not recorded."""
        known = [start["seconds"] for start in self.starts if start["seconds"] is not None]
        return sum(known) if known else None

    @property
    def training_images(self) -> int:
        """How many images training has seen, repeated ones counted again."""
        return self.step * self.config["train"]["batch_size"]


def collect(folder: pathlib.Path) -> Run:
    """What training and the tasks have left in `folder`, a run or `<run>/previews/<step>`.

    Raises UserError where it holds no run, or a file in it cannot be read.
    """
    folder = pathlib.Path(folder)
    root = folder if (folder / CONFIG).is_file() or folder.parent.name != PREVIEWS else folder.parents[1]
    if not (root / CONFIG).is_file():
        raise UserError(f"No {CONFIG} in {root}: not a run. Give a --workdir that --task=train has written.")
    lines = _lines(root / CURVES)
    files = {path.parent.name: path for path in sorted(folder.glob(f"*/{NUMBERS}"))}
    metrics = {task: _read(path, task) for task, path in files.items()}
    probes = _probes(folder)
    newest = max((path.stat().st_mtime for path in (root / CHECKPOINTS).glob("*")), default=0.0)
    written = files | {f"probe/{dataset}": path for dataset, path in probes.items()}
    return Run(
        root=root,
        folder=folder,
        config=_read(root / CONFIG, "train"),
        metrics=metrics,
        pictures={task: _pictures(folder, task) for task in metrics},
        probes={name: _read(path, "probe") for name, path in probes.items()},
        earlier=frozenset(name for name, path in written.items() if folder == root and path.stat().st_mtime < newest),
        curves=_curves(lines),
        step=_step(root, folder),
        starts=_timed(provenance.starts(root), lines),
    )


def _probes(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """{data set: the file of its numbers}; earlier versions wrote those of the last one alone."""
    files = sorted((folder / "probe").glob("metrics_*.json"))
    last = folder / "probe" / NUMBERS
    if files or not last.is_file():
        return {path.stem.removeprefix("metrics_"): path for path in files}
    return {str(_read(last, "probe").get("dataset")): last}


def _step(root: pathlib.Path, folder: pathlib.Path) -> int:
    names = [folder.name.removeprefix("step_")] if folder != root else [p.name for p in (root / CHECKPOINTS).glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def _read(path: pathlib.Path, task: str) -> dict[str, Any]:
    """The object in a JSON file that a task has written."""
    try:
        content = clean(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and run --task={task} again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no object; delete it and run --task={task} again.")
    return content


def _pictures(folder: pathlib.Path, task: str) -> list[str]:
    here = folder.resolve()  # a link could show what else is on this machine
    inside = (path for path in (folder / task).glob("*") if path.resolve().is_relative_to(here))
    paths = sorted(path for path in inside if path.suffix in PICTURES)
    return [path.relative_to(folder).as_posix() for path in sorted(paths, key=lambda path: path.suffix != ".png")]


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """The complete lines of metrics.jsonl; a last one may have been cut off by a kill."""
    lines = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(clean(json.loads(line)))
        except (ValueError, RecursionError):
            continue
    return [line for line in lines if isinstance(line, dict) and "step" in line]


def _curves(lines: list[dict[str, Any]]) -> dict[str, list[list[float]]]:
    curves: dict[str, list[list[float]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in NO_CURVES and isinstance(value, int | float):
                curves.setdefault(name, []).append([line["step"], value])
    return curves


def _timed(starts: list[dict[str, Any]], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The starts, each with the seconds until the last line that was written before the next."""
    times = [line["time"] for line in lines if "time" in line]
    timed = []
    for i, start in enumerate(starts):
        end = starts[i + 1]["began"] if i + 1 < len(starts) else float("inf")
        own = [time for time in times if start["began"] <= time < end]
        timed.append(start | {"seconds": max(own) - start["began"] if own else None})
    return timed
