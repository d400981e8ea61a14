"""A tiny training as a process, and the digest of what it has learned."""

import dataclasses
import hashlib
import os
import pathlib
import re
import shutil

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from tests.several import Host, hosts

PARTS = ("params", "ema", "opt_state", "batch_stats")
CONFIG = {
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


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the soak works: `root`, with one compilation cache; steps: of each training."""

    root: pathlib.Path
    steps: int

    def arguments(self, name: str) -> list[str]:
        values = CONFIG | {"train.total_steps": self.steps}
        overrides = [f"--config.{field}={value}" for field, value in values.items()]
        return ["--config=configs/ddpm_digits.py", f"--workdir={self.root / name}", *overrides]

    @property
    def environment(self) -> dict[str, str]:
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self.root / "xla"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        return cache | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "True"}

    def start(self, name: str) -> Host:
        return Host(*self.arguments(name), **self.environment)

    def start_together(self, name: str, count: int) -> list[Host]:
        return hosts(count, *self.arguments(name), **self.environment)

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

    def arrays(self, name: str) -> list[np.ndarray]:
        return arrays(self.root / name, self.steps)


def arrays(run: pathlib.Path, step: int) -> list[np.ndarray]:
    """All arrays of a checkpoint, in the order of their paths."""
    folder, here = run.resolve() / "checkpoints" / str(step), jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),  # whatever devices have written it
        {name: part for name, part in ocp.checkpointables_metadata(folder).metadata.items() if name in PARTS},
        is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    saved = ocp.load_checkpointables(folder, shapes)
    tree = {name: saved[name] for name in PARTS if name in saved}
    return [np.asarray(leaf) for _, leaf in sorted(jax.tree.leaves_with_path(tree), key=lambda item: str(item[0]))]


def digest(run: pathlib.Path, step: int) -> str:
    """Of params, EMA and optimizer, to the bit."""
    content = hashlib.sha256()
    for array in arrays(run, step):
        content.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return content.hexdigest()


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
