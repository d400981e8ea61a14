"""A profile of some training steps, for TensorBoard's profiler, XProf or Perfetto: what the device did, and when."""

import logging
from typing import Any

import jax
from etils import epath

log = logging.getLogger(__name__)

FOLDER = "profile"


class Profiler:
    """Traces the steps `steps` = (first, last) into `<run>/profile/`; () for none.

    Tracing begins later where a run resumes between the two, and ends with the training where that stops earlier.
    """

    def __init__(self, run_folder: epath.Path, steps: tuple[int, ...]):
        self._folder = run_folder / FOLDER
        self._first, self._last = steps or (0, -1)
        self._tracing = False

    def start(self, step: int) -> None:
        """Before a step is dispatched."""
        if not self._tracing and self._first <= step <= self._last:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True

    def stop(self, step: int, results: Any) -> None:
        """After it was dispatched; behind the last one this waits for its results."""
        if self._tracing and step == self._last:
            jax.block_until_ready(results)
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self._tracing = False
        log.info("A profile is in %s; xprof, or TensorBoard with its plugin, shows it.", self._folder)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._tracing:
            self._end()
