"""Readers beside a training: they open the run again and again, and the training never notices."""

import logging
import sys
import time
import traceback

from diffrep_jax.errors import UserError
from diffrep_jax.inference.open import open_run
from tests.soak.runs import Place, digest


def reading(place: Place, count: int) -> dict[str, int]:
    """Open the run of a training `count` times while it saves; a new training begins where one is done."""
    wanted = place.whole("whole")
    done = {"opened": 0, "had no checkpoint yet": 0, "trainings": 0, "failed": 0, "runs that differ": 0}
    logging.getLogger("diffrep_jax").setLevel(logging.ERROR)
    while done["opened"] < count:
        run = place.fresh("read")
        before = done["opened"]
        host = place.start("read", "--config.train.keep_last=1")  # the one before goes as soon as there is another
        while host.process.poll() is None:
            try:
                open_run(run)
                done["opened"] += 1
            except UserError as error:
                done["had no checkpoint yet"] += done["opened"] == before
                done["failed"] += done["opened"] > before
                if done["opened"] > before:
                    print(error, file=sys.stderr)
                time.sleep(0.1)
            except Exception:
                traceback.print_exc(limit=1)
                done["failed"] += 1
        done["trainings"] += 1
        done["failed"] += host.code() != 0
        done["runs that differ"] += digest(run, place.steps) != wanted
    return done
