"""What a run's tasks have measured: one number, the name of its measure, and the settings it was measured with."""

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any

from diffrep_jax.report.collect import Run

OF_IMAGES = ("mse", "ssim", "psnr", "lpips")
DECODING = ("dataset", "split", "images", "sampler", "grid", "steps", "churn_step_ratio", "eta", "evaluations")


@dataclasses.dataclass(frozen=True)
class Measured:
    """as_published: measured as the papers' code did, where that is not what we stand for."""

    measure: str
    value: float | None
    task: str
    settings: dict[str, Any]
    as_published: bool = False


def measured(run: Run) -> list[Measured]:
    """All numbers of the run that a paper might have too."""
    method = run.config["method"]
    always = {"latent_dim": method["latent_dim"]} if "latent_dim" in method else {}
    found = [*_probe(run), *_reconstructions(run), *_disentanglement(run), *_samples(run), *_training(run)]
    return [
        dataclasses.replace(one, settings=always | one.settings) for one in found if isinstance(one.value, int | float)
    ]


def _probe(run: Run) -> Iterator[Measured]:
    for report in run.probes.values():
        yield from _one_probe(report)


def _one_probe(report: dict[str, Any]) -> Iterator[Measured]:
    settings = {key: report[key] for key in ("dataset", "epochs", "lr") if key in report} | {"split": "test"}
    if "test" in report.get("images", {}):
        settings["images"] = report["images"]["test"]
    for part in ("classes", "attributes"):
        if part not in report:
            continue
        found = report[part]
        counted = settings | {part: len(next(iter(found["each"].values())))}
        for measure, value in found["mean"].items():
            name = f"{part}_{measure}"
            yield Measured(name, value, "probe", counted | {"epoch_from": "validation"})
            official = found["official"]["mean"][measure]
            yield Measured(name, official, "probe", counted | {"epoch_from": "test"}, as_published=True)


def _reconstructions(run: Run) -> Iterator[Measured]:
    rows = [("evaluate", row) for row in run.metrics.get("evaluate", {}).get("rows", [])]
    if "reconstruct" in run.metrics:
        rows.append(("reconstruct", run.metrics["reconstruct"]))
    for task, row in rows:
        settings = {key: row[key] for key in DECODING if key in row}
        for measure in OF_IMAGES:
            window = {"window": "along height and width"} if measure == "ssim" else {}
            yield Measured(f"reconstruction_{measure}", row.get(measure), task, settings | window)
        window = {"window": "along width and channels"}
        yield Measured("reconstruction_ssim", row.get("ssim_official"), task, settings | window, as_published=True)


def _disentanglement(run: Run) -> Iterator[Measured]:
    found = run.metrics.get("evaluate", {}).get("disentanglement") or {}
    settings = {key: value for key, value in found.items() if key in ("dataset", "split", "images", "folds")}
    yield Measured("tad", found.get("tad"), "evaluate", settings)


def _samples(run: Run) -> Iterator[Measured]:
    found = run.metrics.get("sample", {})
    settings = {key: found[key] for key in DECODING if key in found}
    yield Measured("samples_fid", found.get("fid"), "sample", settings)


def _training(run: Run) -> Iterator[Measured]:
    method = run.config["method"]
    yield Measured("code_size", method["latent_dim"] if "latent_dim" in method else None, "train", {})
    rates = [value for _, value in run.curves.get("images_per_second", [])]
    if rates and run.starts:
        last = run.starts[-1]
        device = {"device": last["device"], "devices": last["devices"]}
        yield Measured("images_per_second", statistics.median(rates) / last["devices"], "train", device)
