"""Reconstructions of a run by recipe and number of evaluations: a table, and curves.

python -m benchmarks.few_steps --workdir=runs/digits --out=docs/results/few_steps_digits.md

MSE, SSIM and PSNR of held-out images on [0, 1]; the root mean square distance to the fine solution, order 3 with FINE
evaluations from the same start; and a Frechet distance between images and reconstructions in the space of a small
classifier, which is trained here on the run's training images. Writes the table, the same as .json, and a .png.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

import diffrep_jax
from benchmarks.command import one_line
from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from diffrep_jax.metrics import image as metrics
from diffrep_jax.metrics.fid import Moments, frechet_distance
from diffrep_jax.runs import config as run_config
from diffrep_jax.samplers import Sampling, normal_noise
from diffrep_jax.samplers.drift import Problem
from diffrep_jax.samplers.driver import START
from diffrep_jax.tasks import base
from diffrep_jax.types import Process

COUNTS = (1, 2, 3, 5, 8, 10, 20, 50, 100)
FINE = 100
MEASURES = ("mse", "ssim", "psnr", "to_fine", "frechet")

# name: (what differs from order 1 on uniform_lambda, whether its noise keeps it from having a fine solution)
RECIPES: dict[str, tuple[dict[str, Any], bool]] = {
    "Euler": ({"sampler": "euler", "grid": "karras"}, False),
    "Heun": ({"sampler": "heun", "grid": "karras"}, False),
    "Euler, churn 0.33": ({"sampler": "euler", "grid": "karras", "churn_step_ratio": 0.33}, True),
    "order 1": ({}, False),
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
PUBLISHED = {"Euler, churn 0.33": (666,)}  # evaluations besides: the paper's 333 steps (DBAE, for LPIPS)
SHOWN_RANGE, SSIM_RANGE = 10.0, 0.15  # of a panel: times, less than the best; what is worse lies on its edge
DRAWN = {
    "Euler": "black",
    "Heun": "grey",
    "Euler, churn 0.33": "brown",
    "order 1": "orange",
    "order 2": "red",
    "order 1, noise": "deepskyblue",
    "order 2, noise": "blue",
    "eta 1": "green",
}
ON_BRIDGES = ("churn", "noise")  # what a Gaussian process has no use for: its x_T is noise


@dataclasses.dataclass(frozen=True)
class Reference:
    """Held-out images, uint8, with their codes, and the space in which sets of them are compared."""

    pixels: np.ndarray
    z: np.ndarray
    features: Callable[[np.ndarray], np.ndarray]

    def frechet(self, images: np.ndarray) -> float:
        sets = [Moments.empty(self.features(self.pixels[:1]).shape[1]) for _ in range(2)]
        for moments, pictures in zip(sets, (self.pixels / 255.0, images), strict=True):
            moments.update(self.features(pictures))
        return frechet_distance(*sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="a trained auto-encoder")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the table, .md")
    parser.add_argument("--images", type=int, default=-1, help="the first ones of the test split; -1: all")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of evaluations")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="NAME")
    parser.add_argument("--published", action="store_true", help="also churn 0.33 with 333 steps")
    parser.add_argument("--data_dir", type=pathlib.Path)
    arguments = parser.parse_args()
    model = diffrep_jax.load(arguments.workdir)
    config = run_config.load(arguments.workdir)
    reference = open_reference(model, config, arguments.images, arguments.data_dir)
    chosen = {name: RECIPES[name] for name in arguments.recipes}
    rows = measure(model, reference, tuple(arguments.counts), chosen, arguments.published)
    write(
        arguments.out, rows, " ".join(["python -m benchmarks.few_steps", *sys.argv[1:]]), model, len(reference.pixels)
    )


def open_reference(model: Model, config: Any, count: int, data_dir: pathlib.Path | None) -> Reference:
    test = base.open_dataset(config, "test", data_dir)
    pixels = np.stack([test[i]["image"] for i in range(len(test) if count == -1 else count)])
    return Reference(pixels, model.encode(pixels), classifier(base.open_dataset(config, "train", data_dir)))


def classifier(train: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The hidden layer of a perceptron of 64 units that tells the classes of the training images apart."""
    from sklearn.neural_network import MLPClassifier

    rows = [train[i] for i in range(len(train))]
    if "label" not in rows[0]:
        raise UserError("The data set has no classes to train a classifier on; take digits or fashion.")
    flat = np.stack([row["image"] for row in rows]).reshape(len(rows), -1) / 255.0
    network = MLPClassifier((64,), random_state=0, max_iter=60, early_stopping=True)
    network.fit(flat, [row["label"] for row in rows])
    weights, biases = network.coefs_[0], network.intercepts_[0]
    return lambda images: np.maximum(images.reshape(len(images), -1) @ weights + biases, 0)


def recipe(changes: dict[str, Any], evaluations: int, process: Process) -> Sampling | None:
    """With as many evaluations, for Heun's method, whose number is odd, one less; None where no steps make so many."""
    for steps in range(evaluations, 0, -1):
        how = Sampling(**{"grid": "uniform_lambda", "steps": steps} | changes)
        used = how.nfe(process)
        if used <= evaluations:
            even = how.sampler == "heun" and evaluations > 2
            return how if used >= evaluations - even else None
    return None


def decoder(model: Model, z: np.ndarray) -> Callable[[Sampling], np.ndarray]:
    """Recipe -> images in [-1, 1], with one compilation of the network for all recipes: steps are run one by one."""
    method, process = model.auto_encoder, model.method.process
    xT = jnp.asarray(model.endpoint(z))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(len(z)))
    network = jax.jit(lambda x, t: jnp.clip(method.denoiser(model.variables, jnp.asarray(z), xT)(x, t), -1, 1))
    problem, normal = Problem(lambda x, t: network(x, jnp.float32(t)), xT), normal_noise(keys, xT.shape)

    def decode(how: Sampling) -> np.ndarray:
        stepper, plan = how.stepper(), how.plan(process)
        rows = [jax.tree.map(lambda leaf: np.float32(leaf[i]), plan) for i in range(len(jax.tree.leaves(plan)[0]))]  # noqa: B023
        noise = [normal(jnp.asarray(i)) if stepper.stochastic else None for i in (START, *range(len(rows)))]
        carry = stepper.init(problem, xT, rows[0], noise[0])
        for row, drawn in zip(rows[:-1], noise[1:-1], strict=True):
            carry = stepper.step(problem, carry, row, drawn)
        return np.asarray(stepper.image(stepper.last(problem, carry, rows[-1], noise[-1])))

    return decode


def measure(
    model: Model,
    reference: Reference,
    counts: tuple[int, ...],
    recipes: Mapping[str, tuple[dict[str, Any], bool]],
    published: bool,
) -> list[dict[str, Any]]:
    process, decode = model.method.process, decoder(model, reference.z)
    bridge = process.coefficients(np.asarray(process.t_max))[0] > 0
    fine: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for name, (changes, random) in recipes.items():
        if not bridge and any(word in name for word in ON_BRIDGES):
            continue
        start = {"start": changes.get("start", "mean")}
        if not random and start["start"] not in fine:
            how = Sampling(order=3, grid="uniform_lambda", steps=FINE, **start)
            fine[start["start"]] = unit(decode(how))
        for count in (*counts, *(PUBLISHED.get(name, ()) if published else ())):
            if (how := recipe(changes, count, process)) is None:
                continue
            images = unit(decode(how))
            row = {"recipe": name, "evaluations": how.nfe(process), **scores(images, reference)}
            row["to_fine"] = None if random else float(np.sqrt(((images - fine[start["start"]]) ** 2).mean()))
            rows.append(row | {"how": dataclasses.asdict(how)})
            print(name, *(f"{key} {row[key]:.5g}" for key in row if isinstance(row[key], int | float)), flush=True)
    return rows


def unit(images: np.ndarray) -> np.ndarray:
    """In [0, 1], not rounded."""
    return (np.clip(images, -1, 1).astype(np.float64) + 1) / 2


def scores(images: np.ndarray, reference: Reference) -> dict[str, float]:
    x = reference.pixels / 255.0
    values = {"mse": metrics.mse(x, images), "ssim": metrics.ssim(x, images), "psnr": metrics.psnr(x, images)}
    return {name: float(value.mean()) for name, value in values.items()} | {"frechet": reference.frechet(images)}


def write(out: pathlib.Path, rows: list[dict[str, Any]], command: str, model: Model, images: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    curves(out.with_suffix(".png"), rows)
    device = model.mesh.devices.flat[0]
    lines = [
        f"# {type(model.method).__name__}: quality by recipe and number of evaluations",
        "",
        f"    {command}",
        "",
        f"{images} held-out images on {model.mesh.size} x {device.device_kind}. MSE, SSIM and PSNR on [0, 1] without "
        f"rounding; to fine: the RMS distance to order 3 with {FINE} evaluations from the same start; Frechet: between "
        "images and reconstructions, in the hidden layer of a small classifier that the script trains. Euler, Heun and "
        "churn on the grid karras, all others on uniform_lambda.",
        "",
        f"![curves]({out.with_suffix('.png').name})",
        "",
        "| recipe | evaluations | MSE | SSIM | PSNR | to fine | Frechet |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row['mse']:.5f}", f"{row['ssim']:.4f}", f"{row['psnr']:.2f}"]
        cells += ["-" if row["to_fine"] is None else f"{row['to_fine']:.4f}", f"{row['frechet']:.3f}"]
        lines.append(f"| {row['recipe']} | {row['evaluations']} | " + " | ".join(cells) + " |")
    out.write_text("\n".join(lines) + "\n")


def curves(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """A panel a measure, a line a recipe of DRAWN; axes logarithmic but SSIM's, far worse values on the edge."""
    figure = Image.new("RGB", (1400, 900), "white")
    draw = ImageDraw.Draw(figure)
    for i, measure_name in enumerate(("mse", "ssim", "to_fine", "frechet")):
        panel(draw, (80 + 700 * (i % 2), 40 + 450 * (i // 2)), rows, measure_name)
    shown = [name for name in DRAWN if any(row["recipe"] == name for row in rows)]
    for i, name in enumerate(shown):
        draw.text((80 + 165 * i, 8), f"-- {name}", fill=DRAWN[name])
    figure.save(path)


def panel(draw: ImageDraw.ImageDraw, corner: tuple[int, int], rows: list[dict[str, Any]], measure_name: str) -> None:
    rows = [row for row in rows if row["recipe"] in DRAWN and row[measure_name]]
    x = [float(np.log(row["evaluations"])) for row in rows]
    y = [row["ssim"] if measure_name == "ssim" else float(np.log(row[measure_name])) for row in rows]
    if measure_name == "ssim":
        y = [max(v, max(y) - SSIM_RANGE) for v in y]
    if measure_name in ("mse", "frechet"):
        y = [min(v, min(y) + float(np.log(SHOWN_RANGE))) for v in y]
    (left, top), (width, height) = corner, (580, 360)

    def place(u: float, v: float) -> tuple[float, float]:
        across, up = (u - min(x)) / (max(x) - min(x) or 1), (v - min(y)) / (max(y) - min(y) or 1)
        return left + width * across, top + height * (1 - up)

    draw.rectangle((left, top, left + width, top + height), outline="grey")
    draw.text((left + 5, top + 5), measure_name, fill="black")
    for u in np.log(COUNTS):
        draw.text((place(u, min(y))[0] - 6, top + height + 4), f"{np.exp(u):.0f}", fill="black")
    for v in np.linspace(min(y), max(y), 5):
        value = v if measure_name == "ssim" else np.exp(v)
        draw.text((left - 60, place(min(x), v)[1] - 5), f"{value:.3g}", fill="black")
    for name, colour in DRAWN.items():
        points = [place(u, v) for u, v, row in zip(x, y, rows, strict=True) if row["recipe"] == name]
        draw.line(points, fill=colour, width=2)
        for u, v in points:
            draw.ellipse((u - 3, v - 3, u + 3, v + 3), fill=colour)


if __name__ == "__main__":
    with one_line():
        main()
