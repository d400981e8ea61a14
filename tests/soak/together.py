"""Several processes that are preempted, killed, and started again, also in another number."""

import math
import random
import signal
import time
from collections.abc import Sequence

import numpy as np

from tests.several import Host
from tests.soak.runs import Place, complain, digest, distance, losses, step_of

# With one channel to a group norm's group, the biases before the norm have no gradient but rounding errors, and Adam
# makes steps of the learning rate from these, in any direction. With two channels to a group there are no such biases.
WIDE = "--config.method.unet.width=64"
RATE = 1e-4
# Where the number of processes changes, sums are of another order. Limits: of each step's loss, as a part of it; and of
# any parameter, average or moment, a tenth of what Adam moves a parameter by in one step.
LOSSES, STATE = 1e-5, RATE / 10


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
    killed = sent and number is signal.SIGKILL
    if killed:
        done["longest end in s"] = max(done["longest end in s"], round(time.monotonic() - began, 1))
        del codes[chosen]
    for host, code in codes.items():
        wrong = code not in (0, 75 if killed else 143)
        dumps = "stack trace" in host.output or "Traceback" in host.output
        done["wrong exit codes"] += wrong
        done["stack dumps"] += dumps
        if wrong or dumps:
            complain(host, f"process {started.index(host)}: exit code {code}, {number and number.name} to one")


def elastic(place: Place, legs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """One training in several legs, each by (processes, fsdp): how far losses and state are from a whole one's."""
    same = (WIDE, f"--config.optim.lr={RATE}")
    whole = place.fresh("whole, wide")
    assert place.start(whole.name, *same).code() == 0
    run, done = place.fresh("elastic"), {"legs": len(legs), "failed": 0}
    for number, (count, fsdp) in enumerate(legs, start=1):
        steps = place.steps * number // len(legs)
        more = (*same, f"--config.train.total_steps={steps}", f"--config.mesh.fsdp={fsdp}")
        started = place.start_together("elastic", count, *more) if count > 1 else [place.start("elastic", *more)]
        for host in started:
            if code := host.code():
                done["failed"] += 1
                complain(host, f"exit code {code} in leg {number}, {count} processes, fsdp={fsdp}")
    if not (run / "checkpoints" / str(place.steps)).is_dir():
        return done | {"runs that differ": 1}
    ours, theirs = losses(run), losses(whole)
    apart = {
        "losses apart": float(np.max(np.abs(ours / theirs - 1))) if len(ours) == len(theirs) else math.inf,
        "state apart": distance(run, whole, place.steps),
    }
    return (
        done | apart | {"runs that differ": int(not (apart["losses apart"] < LOSSES and apart["state apart"] < STATE))}
    )
