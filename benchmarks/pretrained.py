"""Make a folder of small weights of a run: 16-bit safetensors, config.json, and a card with what they measure.

python -m benchmarks.pretrained --workdir=runs/emoji --out=pretrained/dbae_emoji --data_dir=DIR

The numbers are those of the rounded weights. Next to a code's stand those of as many principal components of the
training images, each at unit deviation, in the same probe. The heads of the probe are kept, in OUT/probe.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import sys
from typing import Any

import numpy as np

from benchmarks import tones
from benchmarks.command import one_line
from benchmarks.components import Components
from diffrep_jax import sections
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import open_run
from diffrep_jax.metrics import image as metrics
from diffrep_jax.report.card import card
from diffrep_jax.report.collect import collect
from diffrep_jax.report.values import text
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import CONFIG, NUMBERS, Run
from diffrep_jax.tasks import _codes, base
from diffrep_jax.tasks.export import CARD
from diffrep_jax.types import Config
from launch import runtime

LIMIT = 5_000_000  # bytes of a folder's weights
SCRATCH = "pretrained"  # in the run: what is measured on the rounded weights
Numbers = dict[str, float]


def make(workdir: pathlib.Path, out: pathlib.Path, data_dir: pathlib.Path | None, tasks: list[str], dtype: str) -> None:
    """Write `out`. Raises UserError where its weights would be larger than LIMIT."""
    config = sections.complete(run_config.load(workdir))
    with config.unlocked():
        config.tasks.export.update(dtype=dtype, push="")
    base.build("export", config.tasks.export, {}).run(open_run(workdir), Run.at(workdir, config))
    (weights,) = (workdir / "export").glob("*.safetensors")
    if weights.stat().st_size > LIMIT:
        raise UserError(f"{weights} has {weights.stat().st_size:,} bytes, more than {LIMIT:,}: use a smaller network.")
    scratch = workdir / SCRATCH
    for folder in (scratch, out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in (weights, workdir / "export" / CONFIG):
            shutil.copy(path, folder)
    model, run = open_run(out), Run.at(scratch, config)
    for task in tasks:
        base.build(task, config.tasks[task], {"data_dir": data_dir}).run(model, run)
    compared = _components(model, run, data_dir) if "latent_dim" in config.method and tasks else ""
    if (scratch / "probe").is_dir():
        shutil.copytree(scratch / "probe", out / "probe", ignore=shutil.ignore_patterns("*.json"))
    trained = collect(workdir)
    measured = dataclasses.replace(
        collect(scratch), root=workdir, folder=workdir, step=trained.step, starts=trained.starts, curves=trained.curves
    )
    arrays = {"file": weights.name, "bytes": weights.stat().st_size, "type of the parameters": dtype}
    page = card(measured, type(model.method).__name__, out.as_posix(), arrays)
    made = f"python -m benchmarks.pretrained --workdir=RUN --out={out.as_posix()} --tasks={','.join(tasks)}"
    (out / CARD).write_text(f"{page}\n{compared}Made by `{made} --dtype={dtype}`.\n")


def _components(model: Model, run: Run, data_dir: pathlib.Path | None) -> str:
    """The section of the card that holds the code against as many principal components."""
    config: Config = run.config
    splits = {s: _codes.open_labelled(config, "", s, data_dir) for s in ("train", "test")}
    images = {s: np.stack([dataset[i]["image"] for i in range(len(dataset))]) / 255.0 for s, dataset in splits.items()}
    components = Components(images["train"], config.method.latent_dim)
    again = components.decode(components.encode(images["test"] * 255.0), images["test"].shape[1:])
    error = {
        "mse": float(metrics.mse(images["test"], again).mean()),
        "ssim": float(metrics.ssim(images["test"], again).mean()),
    }
    place = Run.at(run.folder / "components", config)
    probe: Any = base.build("probe", config.tasks.probe, {"data_dir": data_dir})
    probed = probe.run(components, place)
    rows = []
    for task, theirs in (("reconstruct", error), ("probe", probed)):
        file = run.folder / task / NUMBERS
        ours = json.loads(file.read_text()) if file.is_file() else {}
        rows += [f"| {task}: {name} | {text(ours.get(name))} | {text(value)} |" for name, value in theirs.items()]
    if tones.has_tones(splits["train"].attribute_names):
        values = [text(tones.measured(encode, list(splits.values()))) for encode in (model.encode, components.encode)]
        rows.append(f"| {tones.ROW} | {' | '.join(values)} |")
    head = f"| | the code | {config.method.latent_dim} principal components |\n| --- | --- | --- |\n"
    return "## Next to principal components\n\n" + head + "\n".join(rows) + "\n\n"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.pretrained", description=__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data_dir", type=pathlib.Path)
    parser.add_argument("--tasks", default="reconstruct,probe", help='measured on the rounded weights; "" for none')
    parser.add_argument("--dtype", default="bfloat16")
    flags = parser.parse_args(argv)
    runtime.show_log("%(message)s")
    make(flags.workdir, flags.out, flags.data_dir, [t for t in flags.tasks.split(",") if t], flags.dtype)


if __name__ == "__main__":
    with one_line():
        main(sys.argv[1:])
