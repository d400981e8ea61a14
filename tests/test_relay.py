"""The thread between a process and JAX's coordination service: it carries bytes, and notices the service's end."""

import socket
import threading
import time

import pytest

from launch.relay import Relay
from tests.several import free_port


class Service:
    """Sends back what comes."""

    def __init__(self):
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.connections = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection):
        try:
            while block := connection.recv(1000):
                connection.sendall(block)
        except OSError:
            pass

    def end(self):
        self.listening.close()
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@pytest.fixture
def relayed():
    """(service, relay, the event that it is lost, an open connection that was answered once)."""
    service, lost = Service(), threading.Event()
    relay = Relay(service.address, lost.set)
    near = connected(relay)
    near.sendall(b"ping")
    assert near.recv(10) == b"ping"
    yield service, relay, lost, near
    near.close()
    service.listening.close()


def connected(relay):
    host, _, port = relay.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 10)
    connection.settimeout(10)
    return connection


def test_bytes_are_carried_both_ways_whole_and_in_order(relayed):
    _, relay, lost, near = relayed
    content = bytes(range(256)) * 4000
    threading.Thread(target=near.sendall, args=(content,), daemon=True).start()
    other = connected(relay)
    other.sendall(b"second")
    assert other.recv(10) == b"second"
    back = b""
    while len(back) < len(content):
        back += near.recv(1 << 16)
    assert back == content and not lost.is_set()


def test_where_the_service_ends_the_near_end_stays_open_and_silent(relayed):
    service, _, lost, near = relayed
    service.end()
    assert lost.wait(10)
    near.settimeout(0.2)
    with pytest.raises(TimeoutError):
        near.recv(10)
    near.sendall(b"not refused")


def test_once_released_the_end_is_passed_on_and_is_no_loss(relayed):
    service, relay, lost, near = relayed
    relay.release()
    service.end()
    assert near.recv(10) == b"" and not lost.is_set()


def test_the_near_end_that_closes_is_no_loss_and_closes_the_far_one(relayed):
    service, _, lost, near = relayed
    near.close()
    (far,) = service.connections
    far.settimeout(10)
    end = time.monotonic() + 10
    while far.fileno() >= 0 and time.monotonic() < end:  # until the service has read the end
        try:
            if far.recv(1) == b"":
                break
        except OSError:
            break
    assert time.monotonic() < end and not lost.is_set()


def test_a_service_that_is_not_there_yet_is_a_closed_connection():
    """JAX tries again; nothing is lost that never answered."""
    lost = threading.Event()
    relay = Relay(f"127.0.0.1:{free_port()}", lost.set)
    assert connected(relay).recv(10) == b"" and not lost.is_set()
