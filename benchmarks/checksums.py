"""What the checksums of a checkpoint cost: saves of random arrays with and without them, in turn.

python benchmarks/checksums.py --megabytes=500 --rounds=8
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax
import numpy as np
from etils import epath

from diffrep_jax.runs import checkpoint, checksums

LEAVES = 100  # a part; three parts of equal size, as parameters, their average and one moment of Adam


def state(megabytes: int) -> dict[str, dict[str, jax.Array]]:
    """Random float32: it does not compress, as trained weights do not."""
    rng, size = np.random.default_rng(0), megabytes * 2**20 // 4 // 3 // LEAVES
    parts = ("params", "ema", "opt_state")
    return {
        p: {f"w{i}": jax.numpy.asarray(rng.standard_normal(size, np.float32)) for i in range(LEAVES)} for p in parts
    }


def save(parts: dict[str, dict[str, jax.Array]], folder: pathlib.Path, sealed: bool) -> dict[str, float]:
    """Seconds: that training waits, until everything is written, of processor time, and of the checksums alone."""
    alone = 0.0
    seal = checksums.seal

    def timed(path: epath.Path) -> None:
        nonlocal alone
        began = time.perf_counter()
        if sealed:
            seal(path)
        alone = time.perf_counter() - began

    with mock.patch.object(checksums, "seal", timed):
        began, busy = time.perf_counter(), time.process_time()
        with checkpoint.opened(folder, writer=True) as checkpoints:
            opened = time.perf_counter()
            checkpoints.save(1, parts)
            waited = time.perf_counter() - opened
        whole = time.perf_counter() - began
    return {"training waits": waited, "all is written": whole, "CPU": time.process_time() - busy, "checksums": alone}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=8)
    flags = parser.parse_args()
    parts = state(flags.megabytes)
    times: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for turn in range(-1, flags.rounds):  # the first one warms up
        for sealed in (True, False) if turn % 2 else (False, True):
            with tempfile.TemporaryDirectory() as folder:
                seconds = save(parts, pathlib.Path(folder), sealed)
            if turn >= 0:
                times[sealed].append(seconds)
    for what in times[True][0]:
        columns = [[seconds[what] for seconds in times[sealed]] for sealed in (True, False)]
        with_, without = ([f(column) for f in (statistics.median, min, max)] for column in columns)
        text = [f"{middle:.2f} s ({least:.2f} to {most:.2f})" for middle, least, most in (with_, without)]
        print(f"{what:>15}: {text[0]} with checksums, {text[1]} without")


if __name__ == "__main__":
    main()
