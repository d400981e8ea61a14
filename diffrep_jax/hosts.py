"""The processes of one run, on one machine or many: who speaks for all, and where they wait for each other."""

import jax
import numpy as np


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return jax.process_index() == 0


def agreed(fingerprint: str) -> str:
    """The first process's fingerprint, in hex digits, for all of them."""
    if jax.process_count() == 1:
        return fingerprint
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(np.frombuffer(bytes.fromhex(fingerprint), np.uint8)).tobytes().hex()


def wait_for_all(name: str) -> None:
    """Until every process is here; `name` tells one such place from another."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
