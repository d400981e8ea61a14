"""JAX's connections to its coordination service, by way of threads of this process that notice where the service ends.

JAX's client ends its process with a dump of the stack as soon as its connection breaks. Here the near end stays open
and silent then, and the process can say what it has lost in one line, and leave by an exit code of its own.
"""

import contextlib
import socket
import threading
from collections.abc import Callable

BLOCK = 1 << 16  # bytes that are carried at once
CONNECT_SECONDS = 20.0


class Relay:
    """Listens at `address`, a port of this machine alone, and carries what comes there to the service at `to` and back.

    Where that cannot be reached, connections are closed, and JAX tries again. `lost` is called, once and in a thread,
    when the service closes a connection that it had answered at.
    """

    def __init__(self, to: str, lost: Callable[[], None]):
        host, _, port = to.rpartition(":")
        self._to, self._lost = (host.strip("[]"), int(port)), lost
        self._released = self._over = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self) -> None:
        """From now on the end of the service is no loss: it closes the connections, as without a relay."""
        self._released = True

    def _accept(self) -> None:
        while True:
            near, _ = self._listening.accept()
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._to, CONNECT_SECONDS)
        except OSError:
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.settimeout(None)
        threading.Thread(target=self._forth, args=(near, far), daemon=True).start()
        answered = _pump(far, near)
        if self._near_is_open(near) and answered and not self._released:
            if not self._over:
                self._over = True
                self._lost()
            return  # `near` stays open
        _end(near)
        _end(far)

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        _pump(near, far)
        _end(far)  # the other direction too

    def _near_is_open(self, near: socket.socket) -> bool:
        try:
            return near.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def _end(connection: socket.socket) -> None:
    """Close it, also where another thread waits for what it brings."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def _pump(source: socket.socket, target: socket.socket) -> bool:
    """Carry bytes until one end closes; whether there were any."""
    any_came = False
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            any_came = True
            target.sendall(block)
    return any_came
