"""Where a run's numbers and pictures go: `metrics.jsonl` (one dict a line) and TensorBoard."""

import json
import logging
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from etils import epath

from diffrep_jax.runs import layout

log = logging.getLogger(__name__)

FLUSH_SECONDS = 10.0  # for TensorBoard


class Writer:
    """Writes on the first process only; lines of steps that a resumed run will do again are dropped."""

    def __init__(self, folder: str | os.PathLike[str], *, start_step: int, active: bool = True):
        self._path = layout.as_path(folder) / layout.CURVES
        self._board: _Board | None = None
        if active:
            for path in (self._path, layout.as_path(folder) / layout.TENSORBOARD):
                layout.refuse_link(path)
            _drop_after(self._path, start_step)
            self._board = _Board(layout.made(layout.as_path(folder) / layout.TENSORBOARD), start_step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a step; the line also has "time", the seconds since 1970."""
        if self._board is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n")
        self._board.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 picture [h, w, c]."""
        if self._board is not None:
            self._board.image(step, name, image)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()


class _Board:
    """TensorBoard's file of events, written by the caller: a thread would keep to itself what the disk refuses."""

    def __init__(self, folder: epath.Path, first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        protocol: Any = event_pb2
        self._event = protocol.Event
        self._file = EventsWriter(os.fspath(folder / "events"))
        self._flushed = 0.0
        # Later steps of earlier files are not shown any more.
        self._add(first_step, session_log=protocol.SessionLog(status=protocol.SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboardX import summary

        for name, value in values.items():
            self._add(step, summary=summary.scalar(name, value))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        from tensorboardX import summary

        self._add(step, summary=summary.image(name, image, dataformats="HWC"))

    def close(self) -> None:
        self._file.close()

    def _add(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))

    def _flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()


def _drop_after(path: epath.Path, step: int) -> None:
    """Keep the complete lines up to `step`; where that is none of them, all lines in another file."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue  # a line cut off by a kill
    if not kept and path.stat().length:
        old = path.with_name(f"{path.stem}_until_{int(time.time())}{path.suffix}")
        log.warning("The run starts at step %d, but %s has later lines; they are kept as %s.", step, path, old.name)
        path.rename(old)
        return
    layout.write_text(path, "".join(kept))
