"""Several processes that are preempted, killed, and started again, also in another number."""

import random
import signal
import time

import numpy as np

from tests.several import Host
from tests.soak.runs import Place, digest, step_of

TOLERANCE = 1e-5  # of parameters and moments where the number of processes changes: sums are of another order


def preempted(place: Place, count: int, processes: int, rng: random.Random) -> dict[str, float]:
    """Stop one of `processes` at random moments; each time all start again, and the end is compared to the bit."""
    name, whole = f"preempted {processes}", f"whole {processes}"
    place.fresh(whole)
    assert all(host.code() == 0 for host in place.start_together(whole, processes))
    wanted = digest(place.root / whole, place.steps)
    done = {"processes": processes, "SIGTERM": 0, "SIGKILL": 0, "wrong exit codes": 0, "longest end in s": 0.0}
    done |= {"stack dumps": 0, "runs compared": 0, "runs that differ": 0}
    while done["SIGTERM"] + done["SIGKILL"] < count:
        run = place.fresh(name)
        while not (run / "checkpoints" / str(place.steps)).is_dir():
            started = place.start_together(name, processes)
            stop = done["SIGTERM"] + done["SIGKILL"] < count
            _stop_one(started, rng.choice([signal.SIGTERM, signal.SIGKILL]) if stop else None, rng, done)
        done["runs compared"] += 1
        done["runs that differ"] += digest(run, place.steps) != wanted
    return done


def _stop_one(started: list[Host], number: signal.Signals | None, rng: random.Random, done: dict[str, float]) -> None:
    while step_of(started[0]) == 0 and started[0].process.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 2))
    chosen = rng.choice(started)
    sent = number is not None and chosen.process.poll() is None
    began = time.monotonic()
    if number is not None and sent:
        chosen.process.send_signal(number)
        done[number.name] += 1
    codes = {host: host.code() for host in started}
    if sent and number is signal.SIGKILL:
        done["longest end in s"] = max(done["longest end in s"], round(time.monotonic() - began, 1))
        done["wrong exit codes"] += sum(code not in (0, 75) for host, code in codes.items() if host is not chosen)
    else:
        done["wrong exit codes"] += sum(code not in (0, 143) for code in codes.values())
    done["stack dumps"] += sum("stack trace" in host.output or "Traceback" in host.output for host in started)


def elastic(place: Place, rng: random.Random) -> dict[str, float]:
    """One training by 2, 1 and 2 processes in turn: the largest distance to an uninterrupted one's state."""
    place.whole("whole")
    run, counts = place.fresh("elastic"), []
    for count in (2, 1, 2):
        counts.append(count)
        started = place.start_together("elastic", count) if count > 1 else [place.start("elastic")]
        if len(counts) < 3:
            _stop_one(started, signal.SIGTERM, rng, {"SIGTERM": 0, "wrong exit codes": 0, "stack dumps": 0})
        assert all(host.code() in (0, 143) for host in started), started[0].output
    pairs = zip(place.arrays("elastic"), place.arrays("whole"), strict=True)
    distance = max(float(np.abs(a.astype(np.float64) - b).max(initial=0)) for a, b in pairs)
    finished = (run / "checkpoints" / str(place.steps)).is_dir()
    return {"largest distance": distance, "runs that differ": int(not finished or distance > TOLERANCE)}
