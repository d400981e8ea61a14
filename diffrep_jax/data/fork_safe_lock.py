"""A lock that is free in a forked process, even where another thread held it at the fork."""

import os
import threading
from typing import Any


class ForkSafeLock:
    """Made at the top of a module, used with `with`."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()
