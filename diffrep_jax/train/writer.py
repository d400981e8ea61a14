"""Where a run's numbers and pictures go: `metrics.jsonl` (one dict a line) and the loggers."""

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

import numpy as np
from etils import epath

from diffrep_jax.runs import layout
from diffrep_jax.train.loggers import LOGGERS, Logger
from diffrep_jax.types import Config

log = logging.getLogger(__name__)

REWRITE_SECONDS = 1.0


class Writer:
    """Writes on the first process only; lines of steps that a resumed run will do again are dropped."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        start_step: int,
        active: bool = True,
        loggers: Sequence[str] = ("tensorboard",),
        config: Config | None = None,
    ):
        path = layout.as_path(folder)
        self._path, self._active = path / layout.CURVES, active
        self._loggers: list[Logger] = []
        self._rewritten: _Rewritten | None = None
        if active:
            for written in (self._path, path / layout.TENSORBOARD):
                layout.refuse_link(written)
            _drop_after(self._path, start_step)
            if layout.in_object_storage(self._path):
                self._rewritten = _Rewritten(self._path)
            self._loggers = [LOGGERS[name](path, start_step, config) for name in loggers]

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """The values of a step; the line also has "time", the seconds since 1970."""
        if not self._active:
            return
        line = json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n"
        if self._rewritten:
            self._rewritten.add(line)
        else:
            with self._path.open("a") as file:
                file.write(line)
        for logger in self._loggers:
            logger.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A uint8 picture [h, w, c]."""
        for logger in self._loggers:
            logger.image(step, name, image)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rewritten:
            self._rewritten.write()
        for logger in self._loggers:
            logger.close()


class _Rewritten:
    """Lines of a file in object storage, which takes no more to its end: all are written, at most once a second."""

    def __init__(self, path: epath.Path):
        self._path, self._changed, self._written = path, False, 0.0
        self._lines = path.read_text() if path.exists() else ""

    def add(self, line: str) -> None:
        self._lines, self._changed = self._lines + line, True
        if time.monotonic() - self._written > REWRITE_SECONDS:
            self.write()

    def write(self) -> None:
        if self._changed:
            layout.write_text(self._path, self._lines)
            self._changed, self._written = False, time.monotonic()


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
