"""Break trainings in every way that can be had on one machine, and compare what they learn with uninterrupted ones.

python -m tests.soak                      (about an hour; `make soak`)
python -m tests.soak --short              (within four minutes)
python -m tests.soak --only=kills,damage --scale=0.1

Prints a line of JSON for each kind; exit code 1 where anything differs, or went unnoticed.
"""

import argparse
import json
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from tests.soak import damage, full, readers, stops, together
from tests.soak.runs import Place

SHORT, SHORT_STEPS = 0.03, 20  # the scale of --short, and the steps of its trainings
LEGS = [(4, 1), (2, 2), (1, 1), (2, 1), (4, 2)]  # of the kind `elastic`: processes and mesh.fsdp
BAD = (
    "runs that differ",
    "tasks that differ",
    "silent",
    "failed",
    "wrong exit codes",
    "more than two lines",
    "stack dumps",
)
BAD += ("not full", "not one line", "checkpoints lost")


def kinds(place: Place, scale: float, rng: random.Random) -> dict[str, Callable[[], Mapping[str, float]]]:
    """What is done, at scale 1: 100 kills, 50 signals, 130 damages, 20 readers, 20 preemptions of two and four."""

    def times(count: int) -> int:
        return max(1, round(count * scale))

    polite = [signal.SIGTERM, signal.SIGINT]
    return {
        "kills": lambda: stops.stopped(place, times(100), [signal.SIGKILL], rng),
        "signals": lambda: stops.stopped(place, times(50), polite, rng),
        "damage": lambda: damage.damaged(place, times(100), times(30), times(10), rng),
        "readers": lambda: readers.reading(place, times(20)),
        "full": lambda: full.full(place, times(10), times(4), rng),
        "two": lambda: together.preempted(place, times(20), 2, rng),
        "four": lambda: together.preempted(place, times(20), 4, rng),
        "elastic": lambda: together.elastic(place, LEGS if scale >= 1 else LEGS[1:3]),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help=f"as --scale={SHORT}, without four processes")
    parser.add_argument("--scale", type=float, default=1.0, help="how often, times the numbers of `make soak`")
    parser.add_argument("--only", default="", help="kinds, comma-separated")
    parser.add_argument("--steps", type=int, help=f"of each training, an even number: 40, with --short {SHORT_STEPS}")
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(pathlib.Path(folder), flags.steps or (SHORT_STEPS if flags.short else 40))
        every = kinds(place, SHORT if flags.short else flags.scale, random.Random(flags.seed))
        chosen = [name for name in flags.only.split(",") if name] or [
            n for n in every if not flags.short or n != "four"
        ]
        if unknown := set(chosen) - every.keys():
            parser.error(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(every)}")
        for name in chosen:
            began = time.monotonic()
            result = every[name]()
            bad += sum(bool(result.get(what)) for what in BAD)
            print(json.dumps({"kind": name, **result, "seconds": round(time.monotonic() - began)}), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
