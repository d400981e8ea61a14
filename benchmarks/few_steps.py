"""Reconstructions of a run by recipe and number of evaluations: a table, and curves.

python -m benchmarks.few_steps --workdir=runs/digits --out=docs/results/few_steps_digits.md

Calls --task=evaluate for each recipe, whose rows stay in the run's evaluate/metrics.json, so that what was interrupted
goes on; `report` draws them too. Two measures more than the task has by itself: a Frechet distance between images and
reconstructions in the space of a small classifier, trained here on the run's training images, and the root mean square
distance to the fine solution, order 3 with FINE evaluations from the same start. Writes the table, the same as .json,
and a .png.
"""

import argparse
import json
import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

import diffrep_jax
from benchmarks.command import one_line
from diffrep_jax.data import ImageDataset
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics.fid import Moments, frechet_distance
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import NUMBERS, Run
from diffrep_jax.samplers import Sampling
from diffrep_jax.tasks import base
from diffrep_jax.tasks._charts import line_chart
from diffrep_jax.tasks._measures import MEASURES, Measure
from diffrep_jax.types import Config
from launch import runtime

COUNTS = (1, 2, 3, 5, 8, 10, 20, 50, 100)
FINE = 100
CLASSIFIED = 10_000  # training images of the classifier, the first ones
# column: (key of a row, digits)
COLUMNS = {
    "MSE": ("mse", 5),
    "SSIM": ("ssim", 4),
    "PSNR": ("psnr", 2),
    "to fine": ("to_fine", 4),
    "Frechet": ("frechet", 3),
    "LPIPS": ("lpips", 4),
    "FID": ("fid", 2),
}
ORDER_1 = {"sampler": "exponential", "grid": "uniform_lambda", "order": 1, "corrector": False, "clock": "lambda"}
ORDER_1 |= {"churn_step_ratio": 0.0, "eta": 0.0, "start": "mean"}

# name: (what differs from ORDER_1, whether its noise keeps it from having a fine solution)
RECIPES: dict[str, tuple[dict[str, Any], bool]] = {
    "Euler": ({"sampler": "euler", "grid": "karras"}, False),
    "Heun": ({"sampler": "heun", "grid": "karras"}, False),
    "Euler, churn 0.33": ({"sampler": "euler", "grid": "karras", "churn_step_ratio": 0.33}, True),
    "order 1": ({}, False),
    "DDIM, ddim_range": ({"grid": "ddim_range"}, False),
    "order 2": ({"order": 2}, False),
    "order 3": ({"order": 3}, False),
    "order 2, corrector": ({"order": 2, "corrector": True}, False),
    "order 1, noise": ({"start": "noise"}, False),
    "order 2, noise": ({"order": 2, "start": "noise"}, False),
    "order 3, noise": ({"order": 3, "start": "noise"}, False),
    "order 2, corrector, noise": ({"order": 2, "corrector": True, "start": "noise"}, False),
    "order 1, noise only": ({"start": "noise_only"}, False),
    "eta 1": ({"eta": 1.0}, True),
    "eta 1, noise only": ({"eta": 1.0, "start": "noise_only"}, True),
}
DRAWN = ("Euler", "Heun", "Euler, churn 0.33", "order 1", "order 2", "order 1, noise", "order 2, noise", "eta 1")
DRAWN += ("DDIM, ddim_range",)
SHOWN_RANGE, SSIM_RANGE = 10.0, 0.15  # of a panel: times, less than the best; what is worse lies on its edge
ON_BRIDGES = ("churn", "noise")  # what a Gaussian process has no use for: its x_T is noise
ON_STEPS = ("DDIM",)  # the published grids are of discrete steps

Features = Callable[[np.ndarray], np.ndarray]  # uint8 images -> [n, features]
Row = dict[str, Any]


class OfClassifier:
    """The moments of a set of images in the space of the classifier: `_measures.OfSet`."""

    def __init__(self, features: Features):
        self._features, self._moments = features, Moments.empty(0)

    @property
    def count(self) -> int:
        return self._moments.count

    def update(self, images: np.ndarray) -> None:
        features = self._features(images)
        if not self.count:
            self._moments = Moments.empty(features.shape[1])
        self._moments.update(features)

    def distance(self, reference: "OfClassifier") -> float:
        return frechet_distance(reference._moments, self._moments)


class Fine:
    """Mean square distances of reconstructions to the fine solution of the same images, by kind of start."""

    def __init__(self, model: Model, images: list[np.ndarray], batch_size: int):
        self._model, self.images, self._size = model, images, batch_size
        self._solutions: dict[str, dict[bytes, np.ndarray]] = {}

    def from_start(self, start: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """The measure of pairs of originals and reconstructions, uint8."""
        if start not in self._solutions:
            self._solutions[start] = self._solve(start)
        known = self._solutions[start]

        def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            fine = np.stack([known[image.tobytes()] for image in x])
            return ((y / 255.0 - fine) ** 2).mean((1, 2, 3))

        return distances

    def _solve(self, start: str) -> dict[bytes, np.ndarray]:
        how = Sampling(order=3, grid="uniform_lambda", steps=FINE, start=start, seed=self._model.sampling.seed)
        solved: dict[bytes, np.ndarray] = {}
        starts = range(0, len(self.images), self._size)
        for first in base.progress(starts, len(starts), "fine solution"):
            part = np.stack(self.images[first : first + self._size])
            images = self._model.decode(self._model.encode(part, numbers=first), how=how, numbers=first)
            solved |= {x.tobytes(): (y.astype(np.float64) + 1) / 2 for x, y in zip(part, images, strict=True)}
        return solved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a trained auto-encoder")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the table, .md")
    parser.add_argument("--images", type=int, help="the first ones of the test split, -1: all; by default evaluate's")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of evaluations")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--also", nargs="+", type=also, default=[], metavar="NAME=COUNT", help="'Euler=50,100'")
    parser.add_argument(
        "--without_fine", action="store_true", help="no distance to the fine solution, which takes long"
    )
    parser.add_argument("--data_dir", type=pathlib.Path)
    arguments = parser.parse_args()
    runtime.show_log("%(message)s", force=True)
    model = diffrep_jax.load(arguments.workdir)
    config = run_config.load(arguments.workdir)
    settings = dict(config.tasks.evaluate) | {"disentanglement_images": 0, "dci_images": 0, "generated": ()}
    settings |= {} if arguments.images is None else {"num_images": arguments.images}
    more = dict(arguments.also)
    counts = {name: (*arguments.counts, *more.pop(name, ())) for name in arguments.recipes} | more
    images = [] if arguments.without_fine else held_out(config, settings, arguments.data_dir)
    fine = Fine(model, images, settings["batch_size"])
    rows = measure(model, Run.at(arguments.workdir, config), settings, counts, fine, arguments.data_dir)
    write(arguments.out, rows, shlex.join(["python", "-m", "benchmarks.few_steps", *sys.argv[1:]]), model)


def also(text: str) -> tuple[str, tuple[int, ...]]:
    """'Euler=50,100' -> a recipe and numbers of evaluations besides the usual ones."""
    name, _, counts = text.partition("=")
    if name not in RECIPES or not all(count.isdecimal() for count in counts.split(",")):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=COUNT,COUNT,... of one of {', '.join(RECIPES)}")
    return name, tuple(map(int, counts.split(",")))


def measure(
    model: Model,
    run: Run,
    settings: Row,
    counts: Mapping[str, tuple[int, ...]],
    fine: Fine,
    data_dir: pathlib.Path | None,
) -> list[Row]:
    """The rows of --task=evaluate for each recipe at its numbers of evaluations, with its name and the two measures."""
    process = model.method.process
    bridge = process.coefficients(np.asarray(process.t_max))[0] > 0
    features = classifier(base.open_dataset(run.config, "train", data_dir))
    MEASURES["frechet"] = Measure(lambda folder: lambda: OfClassifier(features), pairs=False)
    named: list[Row] = []
    for name, numbers in counts.items():
        if any(word in name for word in (ON_STEPS if bridge else ON_BRIDGES)):
            continue
        changes, random = RECIPES[name]
        if random or not fine.images:
            MEASURES.pop("mse_to_fine", None)
        else:
            to_fine = fine.from_start(changes.get("start", "mean"))
            MEASURES["mse_to_fine"] = Measure(lambda folder, to_fine=to_fine: to_fine)
        asked = {"rows": (ORDER_1 | changes,), "counts": numbers}
        task: Any = base.build("evaluate", settings | asked, {"data_dir": data_dir})
        task.run(model, run)
        lines = json.loads((run.task_folder("evaluate") / NUMBERS).read_text())["rows"]
        for line in lines[: len(task.recipes(model.sampling, process))]:
            squared = line.get("mse_to_fine")
            named.append({"recipe": name, **line, "to_fine": None if squared is None else float(np.sqrt(squared))})
    return named


def held_out(config: Config, settings: Row, data_dir: pathlib.Path | None) -> list[np.ndarray]:
    """The images that the task measures."""
    test = base.open_dataset(config, settings["split"], data_dir, settings["dataset"])
    count = settings["num_images"]
    return [test[i]["image"] for i in range(len(test) if count == -1 else min(count, len(test)))]


def classifier(train: ImageDataset) -> Features:
    """The hidden layer of a perceptron of 64 units that tells the classes of the training images apart, or without
    classes their attributes."""
    from sklearn.neural_network import MLPClassifier

    rows = [train[i] for i in range(min(CLASSIFIED, len(train)))]
    known = next((field for field in ("label", "attributes") if field in rows[0]), "")
    if not known:
        raise UserError(f"{train.name} has no classes or attributes to train a classifier on; take another data set.")
    flat = np.stack([row["image"] for row in rows]).reshape(len(rows), -1) / 255.0
    network = MLPClassifier((64,), random_state=0, max_iter=60, early_stopping=True)
    network.fit(flat, np.asarray([row[known] for row in rows]).astype(int))
    weights, biases = network.coefs_[0], network.intercepts_[0]
    return lambda images: np.maximum(images.reshape(len(images), -1) / 255.0 @ weights + biases, 0)


def write(out: pathlib.Path, rows: list[Row], command: str, model: Model) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    Image.fromarray(curves(rows)).save(out.with_suffix(".png"))
    device = model.mesh.devices.flat[0]
    shown = {title: key for title, key in COLUMNS.items() if any(row.get(key[0]) is not None for row in rows)}
    fine = f"to fine: the RMS distance to order 3 with {FINE} evaluations from the same start, 0.0011 being rounding; "
    fine *= "to fine" in shown
    lines = [
        f"# {type(model.method).__name__}: quality by recipe and number of evaluations",
        "",
        f"    {command}",
        "",
        f"{rows[0]['images']} held-out images of {rows[0]['dataset']} on {model.mesh.size} x {device.device_kind}, by "
        f"--task=evaluate. MSE, SSIM and PSNR on [0, 1], of images in 8 bits; {fine}Frechet: between images and "
        "reconstructions, in the hidden layer of a small classifier that the script trains. Euler, Heun and churn on "
        "the grid karras, DDIM on the one that it names, all others on uniform_lambda.",
        "",
        f"![curves]({out.with_suffix('.png').name})",
        "",
        f"| recipe | evaluations | {' | '.join(shown)} |",
        "|---" * (2 + len(shown)) + "|",
    ]
    for row in rows:
        values = [(row.get(key), digits) for key, digits in shown.values()]
        cells = ["-" if value is None else f"{value:.{digits}f}" for value, digits in values]
        lines.append(f"| {row['recipe']} | {row['evaluations']} | {' | '.join(cells)} |")
    out.write_text("\n".join(lines) + "\n")


def curves(rows: list[Row]) -> np.ndarray:
    """A panel a measure, two by two, a line a recipe of DRAWN, of all recipes where none of these was measured.

    A recipe has one colour in all panels; far worse values lie on the edge.
    """
    rows = [row for row in rows if row["recipe"] in DRAWN] or rows
    titles = {"mse": "MSE", "ssim": "SSIM", "to_fine": "RMS to the fine solution", "frechet": "Frechet"}
    panels = [panel(rows, title, key) for key, title in titles.items() if any(row.get(key) for row in rows)]
    panels += [np.full_like(panels[0], 255)] * (len(panels) % 2)
    return np.concatenate([np.concatenate(panels[i : i + 2], axis=1) for i in range(0, len(panels), 2)])


def panel(rows: list[Row], title: str, key: str) -> np.ndarray:
    lines: dict[str, list[tuple[float, float]]] = {row["recipe"]: [] for row in rows}  # as the colours go
    rows = [row for row in rows if row[key]]
    values = [row[key] for row in rows]
    worst = {"ssim": max(values) - SSIM_RANGE, "to_fine": max(values)}.get(key, min(values) * SHOWN_RANGE)
    edge = max if key == "ssim" else min
    for row in rows:
        lines[row["recipe"]].append((row["evaluations"], edge(row[key], worst)))
    return line_chart(lines, "evaluations", title, log_y=key != "ssim", log_x=True)


if __name__ == "__main__":
    with one_line():
        main()
