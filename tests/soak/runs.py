"""A tiny training as a process, and the digest of what it has learned."""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from diffrep_jax.runs import layout
from tests.several import Host, hosts

PARTS = ("params", "ema", "opt_state", "batch_stats")
IMAGES = 64
CONFIG = {
    "data.name": "folder",
    "data.image_size": 8,
    "data.workers": 2,
    "method.unet.width": 8,
    "method.unet.mult": "(1,)",
    "method.unet.attention": "()",
    "method.dtype": "float32",
    "train.batch_size": 8,
    "train.log_every": 1,
    "train.checkpoint_every": 2,
    "train.keep_last": 2,
    "tasks.sample.every_steps": 0,
    "tasks.report.every_steps": 0,
}
AUTOENCODER = {
    "data.name": "folder",
    "data.image_size": 8,
    "data.workers": 2,
    "method.latent_dim": 8,
    "method.unet.width": 8,
    "method.unet.mult": "(1,)",
    "method.unet.attention": "()",
    "method.encoder.width": 8,
    "method.encoder.mult": "(1,)",
    "method.encoder.attention": "()",
    "method.generator.width": 2,
    "train.batch_size": 8,
    "train.total_steps": 2,
    "sampling.sampler": "heun",
    "sampling.steps": 2,
    "tasks.reconstruct.num_images": 6,
    "tasks.reconstruct.batch_size": 6,
    "tasks.reconstruct.grid_images": 4,
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the soak works: `root`, with one compilation cache and the images; steps: of each training."""

    root: pathlib.Path
    steps: int

    def arguments(self, name: str) -> list[str]:
        values = CONFIG | {"train.total_steps": self.steps}
        overrides = [f"--config.{field}={value}" for field, value in values.items()]
        data = f"--data_dir={self.images()}"
        return ["--config=configs/ddpm_digits.py", f"--workdir={self.root / name}", data, *overrides]

    def images(self) -> pathlib.Path:
        """An archive of random images: digits would take each process a second of imports."""
        path = self.root / "images.npz"
        if not path.is_file():
            np.savez(path, images=np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), np.uint8))
        return path

    def autoencoder(self) -> pathlib.Path:
        """A run of a tiny DBAE, whose previews would come later than its last step."""
        run = self.root / "an autoencoder"
        if not (run / "checkpoints").is_dir():
            overrides = [f"--config.{field}={value}" for field, value in AUTOENCODER.items()]
            place = [f"--workdir={run}", f"--data_dir={self.images()}"]
            host = Host("--config=configs/dbae_digits.py", *place, *overrides, **self.environment)
            assert host.code() == 0, host.output
        return run

    @property
    def environment(self) -> dict[str, str]:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.root / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return cache | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}

    def start(self, name: str, *more: str) -> Host:
        return Host(*self.arguments(name), *more, **self.environment)

    def start_together(self, name: str, count: int, *more: str) -> list[Host]:
        return hosts(count, *self.arguments(name), *more, **self.environment)

    def fresh(self, name: str, of: str | None = None) -> pathlib.Path:
        """An empty folder, or a copy of another run's."""
        shutil.rmtree(self.root / name, ignore_errors=True)
        if of:
            shutil.copytree(self.root / of, self.root / name, symlinks=True)
        return self.root / name

    def whole(self, name: str) -> str:
        """The digest of an uninterrupted run, trained once."""
        if not (self.root / name / "checkpoints" / str(self.steps)).is_dir():
            self.fresh(name)
            host = self.start(name)
            assert host.code() == 0, host.output
        return digest(self.root / name, self.steps)


def arrays(run: pathlib.Path, step: int) -> dict[str, list[np.ndarray]]:
    """All arrays of a checkpoint by part, in the order of the trees."""
    run = run if layout.in_object_storage(run) else run.resolve()
    folder, here = run / "checkpoints" / str(step), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),  # whatever devices have written it
        {name: part for name, part in ocp.checkpointables_metadata(folder).metadata.items() if name in PARTS},
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    saved = ocp.load_checkpointables(folder, shapes)
    return {name: list(map(np.asarray, jax.tree.leaves(saved[name]))) for name in PARTS if name in saved}


def distance(run: pathlib.Path, other: pathlib.Path, step: int) -> float:
    """The largest of any number of two checkpoints; one device keeps the optimizer's state as one long array."""
    ours, theirs = (
        {name: np.concatenate([array.ravel().astype(np.float64) for array in part]) for name, part in saved.items()}
        for saved in (arrays(run, step), arrays(other, step))
    )
    return max(float(np.abs(ours[name] - theirs[name]).max(initial=0)) for name in ours.keys() | theirs.keys())


def digest(run: pathlib.Path, step: int) -> str:
    """Of params, EMA and optimizer, to the bit."""
    content = hashlib.sha256()
    for name, part in arrays(run, step).items():
        for array in part:
            content.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return content.hexdigest()


def losses(run: pathlib.Path) -> np.ndarray:
    """Of each step, in the order of steps."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    by_step = {row["step"]: row["loss"] for row in rows if "loss" in row}
    return np.array([by_step[step] for step in sorted(by_step)])


def step_of(host: Host) -> int:
    """The last step that a process has logged."""
    steps = re.findall(r"step (\d+)/", host.output)
    return int(steps[-1]) if steps else 0


def in_mid_save(run: pathlib.Path) -> bool:
    """Whether a checkpoint is there that is not whole."""
    folder = run / "checkpoints"
    if not folder.is_dir():
        return False
    return any(not (folder / name / "checksums.json").is_file() for name in os.listdir(folder))


def complain(host: Host, what: str) -> None:
    """What a process has said that did not end as it should."""
    print(f"--- {what}; its output:\n{host.output}\n---", file=sys.stderr, flush=True)
