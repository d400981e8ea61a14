"""The processes of a run on many hosts: how they come together."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed  # its store of keys and values, which Orbax uses too, has no public name

from diffrep_jax import peers
from diffrep_jax.errors import UserError
from launch import coordinator
from launch.relay import Relay

HOSTS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
JOIN_SECONDS = 300.0  # that the processes have to come together, where DIFFREP_JOIN_SECONDS does not say otherwise
LONG = 10**5  # seconds: JAX's own limit would end the process with a dump of its stack

_relays: list[Relay] = []  # at most one


def join() -> None:
    """As the cluster says (TPU pods, Slurm, Open MPI, Kubernetes), or as the environment variables of HOSTS do.

    Raises UserError where there is no cluster or the variables are wrong. Ends the process where others do not come.
    """
    given = {name: os.environ[name] for name in HOSTS if os.environ.get(name)}
    remedy = f"on hosts of your own set all of {', '.join(HOSTS)} (host:port, how many, which one from 0 on)."
    if given and len(given) < len(HOSTS):
        missing = ", ".join(name for name in HOSTS if name not in given)
        raise UserError(f"--multihost: {', '.join(given)} is set and {missing} is not; {remedy}")
    with _own_service_and_relay(), _in_time():
        try:
            if given:
                address, count, number = (given[name] for name in HOSTS)
                _check_port(address, remedy)
                jax.distributed.initialize(address, int(count), int(number), initialization_timeout=LONG)
            else:
                jax.distributed.initialize(initialization_timeout=LONG)
        except (ValueError, RuntimeError, TypeError) as error:
            raise UserError(f"--multihost joined no cluster ({error}); {remedy}") from None
    state = distributed.global_state
    peers.join(state.client, state.process_id, state.num_processes)


def part() -> None:
    """The good end, which all have come to: what JAX's service does now is no loss."""
    for relay in _relays:
        relay.release()
    jax.distributed.shutdown()


def _check_port(address: str, remedy: str) -> None:
    port = address.rpartition(":")[2]
    if not (":" in address and port.isdecimal() and 0 < int(port) < 2**16):
        raise UserError(f"--multihost: JAX_COORDINATOR_ADDRESS={address} is no host:port; {remedy}")


@contextlib.contextmanager
def _own_service_and_relay() -> Iterator[None]:
    """JAX starts its service by `coordinator.Service`, reaches it by a `Relay`, and leaves SIGTERM to us."""
    with contextlib.suppress(AttributeError):
        jax.config.update("jax_enable_preemption_service", False)
    library = getattr(distributed, "_jax", None)
    names = ("get_distributed_runtime_service", "get_distributed_runtime_client")
    originals = [getattr(library, name, None) for name in names]
    if None in originals:  # another version of JAX: as it is
        yield
        return

    def client(address: str, *arguments: object, **options: object) -> Any:
        _relays.append(Relay(address, functools.partial(_lost, address)))
        # gRPC would ask a proxy of the environment for this machine too
        direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy") or ""
        os.environ["no_grpc_proxy"] = f"{direct},127.0.0.1".lstrip(",")
        return originals[1](_relays[-1].address, *arguments, **options)  # pyright: ignore[reportOptionalCall]

    for name, ours in zip(names, (coordinator.Service, client), strict=True):
        setattr(library, name, ours)
    try:
        yield
    finally:
        for name, original in zip(names, originals, strict=True):
            setattr(library, name, original)


def _lost(address: str) -> None:
    """The service has ended, which outlives its process: the whole host of the first process is gone."""
    if not peers.lose_service():
        print(f"error: --multihost: the service at {address} is gone; start all again.", file=sys.stderr, flush=True)
        os._exit(peers.TRY_AGAIN)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """End the process, in one line, where not all come together."""
    limit = float(os.environ.get("DIFFREP_JOIN_SECONDS", JOIN_SECONDS))

    def end() -> None:
        state = distributed.global_state
        who, place = "not all processes", state.coordinator_address
        if isinstance(state.service, coordinator.Service):
            who = f"only {coordinator.connections(str(place))} of {state.num_processes} processes"
        print(
            f"error: --multihost: {who} came to {place} within {limit:.0f} s; start all of them, with one address.",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(limit, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
