"""What lies where in a run's folder, and how a file is written: whole, or not at all.

Folders are `etils.epath` paths, so that a bucket (gs://...) serves where a local folder does.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from etils import epath

from diffrep_jax import paths, whole
from diffrep_jax.errors import UserError
from diffrep_jax.types import Config

CONFIG = "config.json"
STARTS = "run.json"
CHECKPOINTS = "checkpoints"
CURVES = "metrics.jsonl"
TENSORBOARD = "tensorboard"
PREVIEWS = "previews"
NUMBERS = "metrics.json"  # of a task, in its folder
SAMPLES = "samples.npz"  # of the task sample
EXAMPLES = "examples"  # images next to exported weights, for notebooks and the web page


@dataclasses.dataclass(frozen=True)
class Run:
    """A run's folder and config, or for the tasks inside training the folder of a preview. Each task has a folder.

    root: the run that a preview belongs to; the folder itself for a run.
    """

    folder: epath.Path
    config: Config
    root: epath.Path

    @classmethod
    def at(cls, folder: str | os.PathLike[str], config: Config) -> "Run":
        path = as_path(folder)
        return cls(path, config, path)

    def preview(self, step: int, root: str | os.PathLike[str] | None = None) -> "Run":
        """Where the tasks of a training step write; `root`: elsewhere than in the run."""
        folder = as_path(self.folder if root is None else root) / PREVIEWS / f"step_{step:08d}"
        return Run(folder, self.config, self.root)

    @property
    def is_preview(self) -> bool:
        return self.folder != self.root

    def task_folder(self, task: str) -> epath.Path:
        """The task's own folder, made if it is not there; UserError where a link leads out of the run."""
        refuse_link(self.folder / task)
        return made(self.folder / task)

    def write_numbers(self, task: str, numbers: Mapping[str, Any], name: str = NUMBERS) -> None:
        """What is not finite becomes null: JSON has no such numbers."""
        finite = json.loads(json.dumps(numbers, default=list), parse_constant=lambda _: None)
        write_json(self.task_folder(task) / name, finite)


def as_path(path: str | os.PathLike[str]) -> epath.Path:
    """A path with ~ and environment variables put in."""
    return epath.Path(paths.expanded(path))


def made(folder: str | os.PathLike[str]) -> epath.Path:
    """The folder, made if it is not there; UserError where a file is in its way or the system refuses."""
    path = as_path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"The folder {path} cannot be made ({reason}); use another --workdir.") from None
    return path


def refuse_link(path: epath.Path) -> None:
    """Raise UserError for a link in a run's folder, by which what is written there would go elsewhere."""
    if os.path.islink(path):
        raise UserError(f"{path} is a link to {os.path.realpath(path)}: nothing is written there; put a folder there.")


@contextlib.contextmanager
def removed_if_unused(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Where the context raises, a run's folder that it made, and its folder of checkpoints, go if they are empty."""
    path = as_path(folder)
    existed = path.exists()
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # where something is in it
            (path / CHECKPOINTS).rmdir()
        with contextlib.suppress(OSError, ValueError):
            if not existed:
                path.rmdir()
        raise


def in_object_storage(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket: gs://... There nothing is locked or appended to, and what is written is whole."""
    return paths.is_address(path)


def local(path: str | os.PathLike[str], what: str) -> pathlib.Path:
    """A path of this machine's files; UserError for an address in a bucket, by what cannot deal with it."""
    if in_object_storage(path):
        raise UserError(f"{what} works on a local folder, not on {os.fspath(path)}: copy the run, and name the copy.")
    return pathlib.Path(path)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that takes its place when all of it is written; until then, and where that fails, the old one stays."""
    path = epath.Path(path)
    if in_object_storage(path):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        return
    with whole.replacing(path) as temporary, temporary.open("wb") as file:
        yield file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    with writing(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    write_text(path, json.dumps(content, indent=2, default=list) + "\n")


def write_arrays(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """As an .npz."""
    with writing(path) as file:
        np.savez(file, **dict[str, Any](arrays))


def read_json(path: str | os.PathLike[str], remedy: str) -> Any:
    """What a JSON file holds; UserError with the remedy where it cannot be read."""
    try:
        return json.loads(epath.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); {remedy}") from None
