"""Checkpoints with a flipped bit, cut short or without a file: noticed, and the one before used."""

import logging
import pathlib
import random

from diffrep_jax.errors import UserError
from diffrep_jax.runs import checkpoint
from tests.soak.runs import Place, digest


def damaged(place: Place, flips: int, cuts: int, trained: int, rng: random.Random) -> dict[str, int]:
    """How many of random damages to the newest checkpoint go unnoticed; from `trained` of them training goes on."""
    wanted = place.whole("whole")
    done = {"flips": 0, "truncations and deletions": 0, "silent": 0, "trained on": 0, "runs that differ": 0}
    logging.getLogger("diffrep_jax").setLevel(logging.ERROR)
    for number in range(flips + cuts):
        run = place.fresh("damaged", of="whole")
        (_flip if number < flips else _cut)(run / "checkpoints" / str(place.steps), rng)
        done["flips" if number < flips else "truncations and deletions"] += 1
        done["silent"] += newest(run) == place.steps
        if number % max((flips + cuts) // max(trained, 1), 1) == 0 and done["trained on"] < trained:
            host = place.start("damaged")
            done["trained on"] += host.code() == 0 and "passed over" in host.output
            done["runs that differ"] += digest(run, place.steps) != wanted
    return done


def newest(run: pathlib.Path) -> int | None:
    with checkpoint.opened(run) as checkpoints:
        try:
            return checkpoints.latest_step()
        except UserError:
            return None


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flip(folder: pathlib.Path, rng: random.Random) -> None:
    """One bit of all those of the checkpoint."""
    files = [path for path in _files(folder) if path.stat().st_size]
    path = rng.choices(files, [file.stat().st_size for file in files])[0]
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(folder: pathlib.Path, rng: random.Random) -> None:
    """Cut a file short, or delete it."""
    path = rng.choice([path for path in _files(folder) if path.stat().st_size])
    if rng.random() < 0.5:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])
