"""A polite end: SIGTERM, a cluster's preemption, and SIGINT, a person's Ctrl-C.

While steps are made, a signal is noted and the loop saves and leaves; a preview is given up for that. Before that, and
in a task, nothing is lost by leaving at once, and a compiler that runs for minutes does not let Python look at signals:
a thread does. A second signal always ends the process at once.
"""

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from diffrep_jax import peers

STDERR = 2
PATIENCE = 5.0  # seconds for what a bucket is told at the end
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class GivenUp(BaseException):
    """What `StopSignal.attempt` was doing when a signal came."""


def watch(kept: str) -> None:
    """Let signals end this process in one line, until all is done; in its last moments, they are ignored.

    While Python takes itself apart they would end a process by the signal whose work is complete.
    """
    atexit.register(_ignore)  # what is registered first is called last
    StopSignal(kept).__enter__()


def _ignore() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _let_go() -> None:
    """Give back the locks that do not end with the process, or try to."""
    lock: Any = sys.modules.get("diffrep_jax.runs.lock")  # where it was not loaded, none is held
    ending = threading.Thread(target=lambda: lock and lock.let_go(), daemon=True)
    ending.start()
    ending.join(PATIENCE)


class StopSignal:
    """Inside the context signals are noted; `received` is the first one's number, 0 for none.

    saving: set it while a signal should let the loop save, instead of ending the process.
    kept: what is said of the process's work where a signal ends it.
    """

    def __init__(self, kept: str = "the last complete checkpoint stays") -> None:
        self.received = 0
        self.saving = False
        self._kept = kept
        self._giving_up = False
        self._restore: dict[signal.Signals, Any] = {}

    @property
    def wish(self) -> peers.Stop | None:
        """To stop, where a signal came; the exit code is 143 or 130, as a shell has it."""
        return peers.Stop(signal.Signals(self.received).name, 128 + self.received) if self.received else None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is not threading.main_thread():  # Python allows no other to handle signals
            return self
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            self._restore[number] = signal.signal(number, self._handle)  # otherwise the thread below acts
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._restore:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._restore.items():
                signal.signal(number, handler)
            self._writing.close()  # ends the thread

    def attempt(self, work: Callable[[], None]) -> None:
        """Do something that a signal ends in the middle."""
        self._giving_up = True
        try:
            if not self.received:
                work()
        except GivenUp:
            while not self.received:  # the thread is about to note it
                time.sleep(0.001)
        finally:
            self._giving_up = False

    def _handle(self, *_: Any) -> None:
        if self._giving_up and self.saving:
            self._giving_up = False
            raise GivenUp

    def _watch(self) -> None:
        while data := self._reading.recv(1):
            number = data[0]
            if number not in SIGNALS:
                continue
            if self.received or not self.saving:
                name = signal.Signals(number).name + (", the second signal" if self.received else "")
                below = "\n" if os.isatty(STDERR) else ""  # the bar
                os.write(STDERR, f"{below}Stopped by {name}; {self._kept}.\n".encode())
                _let_go()
                peers.leave(name, 128 + number)
                os._exit(128 + number)
            self.received = number
        self._reading.close()
