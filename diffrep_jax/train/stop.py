"""A polite end of training: SIGTERM, a cluster's preemption, and SIGINT, a person's Ctrl-C.

While steps are made, a signal is noted and the loop saves and leaves. Before that nothing is lost by leaving at once,
and a compiler that runs for minutes does not let Python look at signals: a thread does. A second signal always ends the
process at once.
"""

import os
import signal
import socket
import sys
import threading
from typing import Any

from diffrep_jax import peers

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Inside the context signals are noted; `received` is the first one's number, 0 for none.

    saving: set it while a signal should let the loop save, instead of ending the process.
    """

    def __init__(self) -> None:
        self.received = 0
        self.saving = False
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
            self._restore[number] = signal.signal(number, lambda *_: None)  # the thread below acts
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._restore:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._restore.items():
                signal.signal(number, handler)
            self._writing.close()  # ends the thread

    def _watch(self) -> None:
        while data := self._reading.recv(1):
            number = data[0]
            if number not in SIGNALS:
                continue
            if self.received or not self.saving:
                name = signal.Signals(number).name
                state = "a second signal" if self.received else "before the first step"
                print(f"\nStopped by {name}, {state}; the last complete checkpoint stays.", file=sys.stderr, flush=True)
                peers.leave(f"{name}, {state}", 128 + number)
                os._exit(128 + number)
            self.received = number
        self._reading.close()
