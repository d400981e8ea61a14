"""The processes of one run, on one machine or many: who speaks for all, and where they wait for each other."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from diffrep_jax import peers

_alone: list[bool] = []


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return jax.process_index() == 0


def index() -> int:
    """Which one this process is of those that share the work."""
    return 0 if _alone else jax.process_index()


def count() -> int:
    """How many processes share the work."""
    return 1 if _alone else jax.process_count()


def is_alone() -> bool:
    """Whether the others, if there are any, take no part in what this process does."""
    return count() == 1


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process works by itself, on its own devices: it neither shares nor waits."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def agreed(fingerprint: str) -> str:
    """The first process's fingerprint, in hex digits, for all that share the work."""
    if is_alone():
        return fingerprint
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(np.frombuffer(bytes.fromhex(fingerprint), np.uint8)).tobytes().hex()


def wait_for_all(name: str) -> None:
    """Until every process is here; `name` tells one such place from another."""
    if count() > 1:
        peers.wait_for_all(name)
