"""A polite end of training on SIGTERM, a cluster's preemption."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignal:
    """Inside the context, notes SIGTERM (a cluster's preemption) instead of dying, so that the loop can save."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> "StopSignal":
        self._handles = threading.current_thread() is threading.main_thread()  # Python allows no other
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
