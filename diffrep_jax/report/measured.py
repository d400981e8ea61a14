"""What a run's tasks have measured: one number, the name of its measure, and the settings it was measured with."""

import dataclasses
import statistics
from collections.abc import Iterator
from typing import Any

from diffrep_jax.report.collect import Run

OF_IMAGES = ("mse", "ssim", "psnr", "lpips")
DECODING = ("dataset", "split", "images", "encode")
DECODING += ("sampler", "grid", "order", "steps", "churn_step_ratio", "eta", "evaluations")


THIS = "this run"
AS_PUBLISHED = "this run, as the paper's code measures"  # where that differs from our own protocol
INFERRED = "this run, x_T inferred"  # from the image, in addition to the code
WAYS = (THIS, AS_PUBLISHED, INFERRED)


@dataclasses.dataclass(frozen=True)
class Measured:
    """value: None where it was not measured; way: one of WAYS."""

    measure: str
    value: float | None
    task: str
    settings: dict[str, Any]
    way: str = THIS


def measured(run: Run) -> list[Measured]:
    """All numbers of the run that a paper might have too."""
    method = run.config["method"]
    always = {"latent_dim": method["latent_dim"]} if "latent_dim" in method else {}
    numbers = [*_probe(run), *_reconstructions(run), *_disentanglement(run), *_samples(run), *_training(run)]
    taken = [one for one in numbers if isinstance(one.value, int | float)]
    return [dataclasses.replace(one, settings=always | one.settings) for one in taken]


def _probe(run: Run) -> Iterator[Measured]:
    for report in run.probes.values():
        yield from _one_probe(report)


def _one_probe(report: dict[str, Any]) -> Iterator[Measured]:
    settings = {key: report[key] for key in ("dataset", "encode", "epochs", "lr") if key in report} | {"split": "test"}
    if "test" in report.get("images", {}):
        settings["images"] = report["images"]["test"]
    for part in ("classes", "attributes", "measures"):
        if part not in report:
            continue
        probed = report[part]
        counted = settings | {part: len(next(iter(probed["each"].values())))}
        for measure, value in probed["mean"].items():
            name = f"{part}_{measure}"
            yield Measured(name, value, "probe", counted | {"epoch_from": "validation"})
            official = probed["official"]["mean"][measure]
            yield Measured(name, official, "probe", counted | {"epoch_from": "test"}, AS_PUBLISHED)


def _reconstructions(run: Run) -> Iterator[Measured]:
    rows = [("evaluate", row) for row in run.metrics.get("evaluate", {}).get("rows", [])]
    if "reconstruct" in run.metrics:
        rows.append(("reconstruct", run.metrics["reconstruct"]))
    for task, row in rows:
        if row.get("reconstructions"):
            continue  # images from files, of unknown origin
        inferred = bool(row.get("invert_steps"))
        settings = {key: row[key] for key in DECODING if key in row}
        settings["x_T"] = "inferred" if inferred else "from the code alone"
        for measure in OF_IMAGES:
            window = {"window": "along height and width"} if measure == "ssim" else {}
            way = INFERRED if inferred else THIS
            yield Measured(f"reconstruction_{measure}", row.get(measure), task, settings | window, way)
        if not inferred:
            window = {"window": "along width and channels"}
            yield Measured("reconstruction_ssim", row.get("ssim_official"), task, settings | window, AS_PUBLISHED)


def _disentanglement(run: Run) -> Iterator[Measured]:
    report = run.metrics.get("evaluate", {}).get("disentanglement") or {}
    settings = {key: value for key, value in report.items() if key in ("dataset", "split", "images")}
    yield Measured("tad", report.get("tad"), "evaluate", settings)


def _samples(run: Run) -> Iterator[Measured]:
    """The FID of the run's own samples; the task that made them says how."""
    made = run.metrics.get("sample", {})
    for row in run.metrics.get("evaluate", {}).get("generated", []):
        if row["path"].endswith("sample/samples.npz"):
            settings = {key: made[key] for key in DECODING if key in made} | {"images": row["images"]}
            yield Measured("samples_fid", row["fid"], "evaluate", settings)


def _training(run: Run) -> Iterator[Measured]:
    method, data = run.config["method"], run.config["data"]
    if "latent_dim" in method:
        yield Measured("code_size", method["latent_dim"], "train", {})
        pixels = data["image_size"] ** 2 * data["channels"]
        yield Measured("code_size", method["latent_dim"] + pixels, "train", {}, INFERRED)
    rates = [value for _, value in run.curves.get("images_per_second", [])]
    if rates and run.starts:
        last = run.starts[-1]
        device = {"device": last["device"], "devices": last["devices"]}
        yield Measured("images_per_second", statistics.median(rates) / last["devices"], "train", device)
