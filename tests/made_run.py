"""Run folders as training and the tasks leave them, with made-up numbers: what a report is made of."""

import json
import pathlib

import numpy as np
from PIL import Image

from configs import dbae_celeba, dbae_digits, dbae_ffhq
from diffrep_jax.runs import config as run_config

BEGAN = 1_790_000_000.0
START = {
    "began": BEGAN,
    "from_step": 0,
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "modified": True,
    "versions": {"diffrep_jax": "0.1.0", "python": "3.12.1", "jax": "0.11.2", "jaxlib": "0.11.2", "flax": "0.12.8"},
    "platform": "gpu",
    "device": "NVIDIA H200",
    "devices": 8,
    "processes": 1,
}
DECODED = {
    "sampler": "euler",
    "grid": "karras",
    "steps": 100,
    "churn_step_ratio": 0.0,
    "eta": 0.0,
    "evaluations": 100,
    "seed": 0,
    "invert_steps": 0,
    "invert_evaluations": 0,
}


def write(path: pathlib.Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))  # as Python writes it: NaN stays NaN


def begin(folder: pathlib.Path, config, step: int) -> pathlib.Path:
    """A run with a config and a checkpoint, and nothing else."""
    (folder / "checkpoints" / str(step)).mkdir(parents=True)
    run_config.save(config, folder)
    return folder


def digits_run(folder: pathlib.Path) -> pathlib.Path:
    begin(folder, dbae_digits.get_config(), 800)
    lines = [{"step": 50 * i, "time": BEGAN + 10 * i, "loss": 1 / i, "images_per_second": 300.0} for i in range(1, 17)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 85')
    return folder


def picture(path: pathlib.Path, width: int, height: int, seed: int = 0) -> None:
    """Noise, which no format makes much smaller."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def probed(dataset: str, part: str, measures: dict[str, np.ndarray], names: list[str], **settings) -> dict:
    """As `--task=probe` writes it; the epoch picked on the test images is better by 0.001."""
    mean = {measure: float(np.nanmean(values)) for measure, values in measures.items()}
    official = {measure: value + 0.001 for measure, value in mean.items()}
    result = {
        "mean": mean,
        "epoch": 12,
        "official": {"mean": official, "epoch": 14},
        "each": {m: dict(zip(names, values.tolist(), strict=True)) for m, values in measures.items()},
    }
    numbers = {f"{part}_{measure}": value for measure, value in mean.items()}
    images = {"train": 162_770, "validation": 19_867, "test": 19_962}
    return (
        numbers | {"dataset": dataset, "images": images, part: result, "epochs": 15, "lr": 1e-3, "seed": 0} | settings
    )


def celeba_probe() -> dict:
    values = np.random.default_rng(1).uniform(0.2, 0.98, 40)
    values[3] = np.nan  # the images cannot tell
    return probed("celeba", "attributes", {"ap": values}, [f"Attribute_{i}" for i in range(40)])


def lfw_probe() -> dict:
    random = np.random.default_rng(2)
    measures = {"r": random.uniform(-0.1, 0.9, 73), "mse": random.uniform(0.1, 0.9, 73)}
    return probed("lfw", "attributes", measures, [f"Attribute {i}" for i in range(73)])


def evaluation() -> dict:
    """As `--task=evaluate` writes it: two samplers, the published protocol among the rows, no FID."""
    rows = []
    for sampler, factor in (("euler", 1), ("heun", 2)):
        for steps in (10, 20, 50, 100):
            evaluations = steps if sampler == "euler" else 2 * steps - 1
            mse = 0.0025 + 0.05 / (evaluations * factor)
            numbers = {"mse": mse, "psnr": -10 * np.log10(mse), "ssim": 0.7 - 2 * mse, "ssim_official": 0.96 - 2 * mse}
            how = DECODED | {"sampler": sampler, "steps": steps, "evaluations": evaluations}
            place = {"images": 30_000, "dataset": "celebahq", "split": "all", "seconds": 1.5 * evaluations}
            rows.append(how | place | numbers | {"lpips": 0.07 + 0.3 / evaluations, "fid": None})
    exact = {"mse": 1e-4, "ssim": 0.98, "ssim_official": 0.99, "lpips": 0.01, "psnr": 40.0, "fid": None}
    rows.append(rows[3] | {"sampler": "exponential", "invert_steps": 100, "invert_evaluations": 100} | exact)
    nothing = dict.fromkeys(
        ("sampler", "grid", "steps", "churn_step_ratio", "eta", "invert_steps", "evaluations", "seed")
    )
    rows.append(rows[3] | nothing | {"mse": 1e-9, "ssim": 1.0, "reconstructions": "theirs.zip", "seconds": None})
    missing = {"fid": "No weights of InceptionV3; give --weights_dir."}
    dci = {"images": 1000, "disentanglement": 0.31, "informativeness": float("nan"), "each": {"a": 0.75, "b": None}}
    disentanglement = {"images": 10_000, "factors": ["a", "b"], "tad": 0.25, "attributes": 9.0, "captured": ["a"]}
    generated = [
        {"path": "runs/ffhq/sample/samples.npz", "images": 50_000, "fid": 12.5, "against": "ffhq, all"},
        {"path": "others.zip", "images": 50_000, "fid": 2.5, "against": "ffhq, all"},
    ]
    report = {"rows": rows, "missing": missing, "generated": generated}
    return report | {"disentanglement": disentanglement | {"dci": dci}}


def ffhq_run(folder: pathlib.Path) -> pathlib.Path:
    """Everything that a report can show, of a DBAE with the deterministic encoder."""
    begin(folder, dbae_ffhq.get_config(), 1_020_000)
    lines = [
        {"step": step, "time": BEGAN + 0.5 * step, "loss": 3e4 / (step + 5e4), "images_per_second": 512.0}
        for step in range(100, 1_020_001, 1000)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(folder / "run.json", {"starts": [START, START | {"began": BEGAN + 300_000, "from_step": 600_000}]})
    numbers = {"mse": 0.0026, "ssim": 0.693, "ssim_official": 0.951, "mse_of_mean_image": 0.07, "images": 64}
    write(folder / "reconstruct" / "metrics.json", numbers | {"split": "test", "dataset": "ffhq"} | DECODED)
    picture(folder / "reconstruct" / "grid.png", 8 * 132 + 100, 3 * 132)
    write(folder / "interpolate" / "metrics.json", {"mse_of_ends": 0.003, "first": "0", "points": 11} | DECODED)
    picture(folder / "interpolate" / "strip.png", 13 * 132 + 100, 132, 1)
    frames = [Image.fromarray(np.full((64, 64, 3), 20 * i, np.uint8)) for i in range(10)]
    frames[0].save(folder / "interpolate" / "interpolation.gif", save_all=True, append_images=frames[1:])
    for seed, task in enumerate(("manipulate", "counterfactual", "sample")):
        write(folder / task / "metrics.json", {"images": 8} | DECODED)
        picture(folder / task / "grid.png", 7 * 132 + 100, 4 * 132, seed + 2)
    write(folder / "probe" / "metrics.json", celeba_probe())
    write(folder / "evaluate" / "metrics.json", evaluation())
    return folder


def celeba_run(folder: pathlib.Path, variant: str = "") -> pathlib.Path:
    begin(folder, dbae_celeba.get_config(variant), 1_000)
    write(folder / "probe" / "metrics.json", lfw_probe())
    return folder
