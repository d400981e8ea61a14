"""Where a run's curves and pictures are also shown, besides metrics.jsonl: TensorBoard, Weights & Biases."""

import importlib.util
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.runs import layout
from diffrep_jax.types import Config

WANDB = "wandb"  # the folder in the run, which the library makes too
RUN_ID = "run_id.txt"
FLUSH_SECONDS = 10.0  # for TensorBoard


class Logger(Protocol):
    """Built of the run's folder, the last step that is not done again, and the config."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 picture [h, w, c]."""
        ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<workdir>/tensorboard`, written by the caller: a thread would keep a full disk to itself."""

    def __init__(self, folder: epath.Path, start_step: int, config: Config | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        protocol: Any = event_pb2
        self._event = protocol.Event
        self._file = EventsWriter(os.fspath(layout.made(folder / layout.TENSORBOARD) / "events"))
        self._flushed = 0.0
        # Later steps of earlier files are not shown any more.
        self._add(start_step + 1, session_log=protocol.SessionLog(status=protocol.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX import summary

        for name, value in values.items():
            self._add(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        from tensorboardX import summary

        self._add(step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))


class WeightsAndBiases:
    """One run of wandb a folder, also where it is resumed; WANDB_PROJECT, WANDB_MODE and the like hold as they do."""

    def __init__(self, folder: epath.Path, start_step: int, config: Config | None):
        import wandb  # pyright: ignore[reportMissingImports]

        file = layout.made(folder / WANDB) / RUN_ID
        if not file.is_file():
            layout.write_text(file, secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "diffrep_jax"),
                id=file.read_text(),
                name=folder.name,
                dir=os.fspath(folder),
                config=config.to_dict() if config is not None else None,
                resume="allow",
            )
        except Exception as error:  # the library's own, of many kinds
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"wandb did not start ({reason}): run 'wandb login', or set WANDB_MODE=offline.") from error
        # Curves go by our step: wandb's own counter takes no step twice, as a resumed run has them.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._image = wandb.Image

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        self._run.log({"step": step, name: self._image(image)})

    def close(self) -> None:
        self._run.finish()


Made = Callable[[epath.Path, int, Config | None], Logger]  # of (folder, start_step, config)
LOGGERS: dict[str, Made] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check(names: Sequence[str]) -> None:
    """Raises UserError for a logger that there is not."""
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS, "config.train.loggers")


def check_installed(names: Sequence[str]) -> None:
    """Raises UserError for one whose library is not there."""
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise UserError("config.train.loggers has 'wandb', which is not installed: pip install 'diffrep_jax[wandb]'.")
