"""Trainings that are killed or told to stop at random moments, and started again until they are done."""

import pathlib
import random
import signal
import time

from tests.several import Host
from tests.soak.runs import Place, complain, digest, in_mid_save, step_of

EARLY = 0.25  # the share of stops before the first step: while it imports, restores or compiles


def stopped(place: Place, count: int, numbers: list[signal.Signals], rng: random.Random) -> dict[str, int]:
    """Stop trainings by these signals `count` times in all, at random moments; every one that ends is compared."""
    wanted, done = place.whole("whole"), {"stops": 0, "in mid-save": 0, "runs compared": 0, "runs that differ": 0}
    done["wrong exit codes"] = done["more than two lines"] = 0
    while done["stops"] < count:
        run = place.fresh("stopped")
        while True:
            number = rng.choice(numbers)
            host = place.start("stopped")
            sent = done["stops"] < count and _send(host, number, rng)
            saving = in_mid_save(run)
            code = host.code()
            done["stops"] += sent
            done["in mid-save"] += sent and saving
            wrong = code not in (0, 128 + number) and number != signal.SIGKILL
            traces = "Traceback" in host.output
            done["wrong exit codes"] += wrong
            done["more than two lines"] += traces
            if wrong or traces:
                complain(host, f"exit code {code} after {number.name}")
            if code == 0:
                break
        done["runs compared"] += 1
        done["runs that differ"] += digest(run, place.steps) != wanted
    return done


def _send(host: Host, number: signal.Signals, rng: random.Random) -> bool:
    """At a random moment; False where the process had ended before."""
    if rng.random() < EARLY:
        while number != signal.SIGKILL and not _catches_signals(host):  # Python's own first moments
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 5))
    else:
        while step_of(host) == 0 and host.process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 2))
    if host.process.poll() is not None:
        return False
    host.process.send_signal(number)
    return True


def _catches_signals(host: Host) -> bool:
    """Whether a process has a handler for SIGTERM, which Python has none for, or has ended."""
    if host.process.poll() is not None:
        return True
    caught = pathlib.Path(f"/proc/{host.process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
