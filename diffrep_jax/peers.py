"""The other processes of a run on many hosts: whether they do the same, when all stop, and who has died.

A thread writes a beat into the key-value store of JAX's coordination service about once a second and reads what the
others have written there, so that a step of training costs nothing. Where a process dies or falls silent, the others
say so in one line and leave: what they wait for on their devices will never come.
"""

import dataclasses
import json
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from diffrep_jax.errors import UserError

EVERY = 0.5  # seconds between two beats
SILENT = 25.0  # seconds without a beat after which a process counts as dead
GRACE = 5.0  # seconds that the main thread has to end by itself when another process has said why it leaves
TRY_AGAIN = 75  # the exit code (EX_TEMPFAIL) where another process was lost: the same command goes on
PATIENCE = 60.0  # seconds after which a process says for whom it waits
ROOT, FACTS = "diffrep_jax/", "diffrep_jax_facts/"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why training stops, and the exit code that goes with it."""

    why: str
    exit_code: int = 0


class Peers:
    """This process among `count`. `client` is JAX's: `key_value_set`, `key_value_dir_get`; `end` ends the process."""

    def __init__(self, client: Any, index: int, count: int, end: Callable[[int], None] = os._exit):
        self._client, self._index, self._count, self._end = client, index, count, end
        self._entries: dict[str, str] = {}
        self._changed = threading.Condition()
        self._beats: dict[int, tuple[str, float]] = {}  # of each other process: the last one, and since when it is so
        self._read = time.monotonic()  # when the store last answered
        self._step = 0
        self._answer: int | None = None  # the step that this process had passed when it heard of a wish to stop
        self._last: int | None = None  # the step after which all stop
        self._wished = self._leaving = self._closed = False
        self._lost: tuple[str, int] | None = None
        self._places: dict[str, int] = {}  # how often each place has been come to
        self._every = max(EVERY, count / 100)  # the store serves all of them
        self._set(f"host/{index}", f"{platform.node()}, process {os.getpid()}")
        threading.Thread(target=self._beat, daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    # --- what the main thread asks

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Raise UserError, in all processes, where one of the facts differs between them."""
        place = f"{FACTS}{self._places.get('facts', 0)}/"  # apart: they are long, and nobody's beat needs them
        self._client.key_value_set(f"{place}{self._index}", json.dumps(facts, default=list))
        self.wait_for_all("facts")
        texts = {name.rpartition("/")[2]: text for name, text in self._client.key_value_dir_get(place)}
        all_facts = [json.loads(texts[str(i)]) for i in range(self._count)]
        for i, theirs in enumerate(all_facts):
            for name in all_facts[0].keys() | theirs.keys():
                if theirs.get(name) != all_facts[0].get(name):
                    raise UserError(
                        f"{self.name(i)} was started with {name}={theirs.get(name)!r}, {self.name(0)} with "
                        f"{all_facts[0].get(name)!r}; start all of them with the same command, code and data."
                    )

    def stop_at(self, step: int, wish: Stop | None) -> Stop | None:
        """Whether all stop after this step, and why. `wish`: that this process would like to.

        A wish is written down, the thread of each process answers it with the step that its main thread has passed, and
        all stop after the one that follows the last of these. Meanwhile nobody passes another step.
        """
        if wish and not self._wished:
            self._wished = True
            why = dataclasses.replace(wish, why=f"{wish.why} ({self.name(self._index)})")
            try:
                self._client.key_value_set(f"{ROOT}stop", json.dumps(dataclasses.asdict(why)))
            except Exception:  # another one wishes it too
                pass
        with self._changed:
            self._changed.wait_for(lambda: self._answer is None or self._last is not None)
            self._step = step
            if self._last is None or step < self._last:
                return None
            return Stop(**json.loads(self._entries["stop"]))

    def wait_for_all(self, name: str) -> None:
        """Until every process is here."""
        self._places[name] = self._places.get(name, 0) + 1
        place = f"{name}/{self._places[name]}"
        self._set(f"{place}/{self._index}", "here")
        with self._changed:
            while not self._changed.wait_for(lambda: not self._missing(place), PATIENCE):
                missing = " and ".join(map(self.name, self._missing(place)))
                log.warning("Still waiting for %s (%s).", missing, name)

    def leave(self, why: str, exit_code: int) -> None:
        """End this process alone, on an error that it has said; the others hear of it, and leave too."""
        self._leaving = True
        try:
            self._set(f"failed/{self._index}", json.dumps({"why": why, "exit_code": exit_code}))
        except Exception:  # the store is gone
            pass
        self._end(exit_code)

    def explain(self) -> None:
        """After an error that the loss of another process may have caused: wait until that would be known."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost is not None, SILENT + 10)
        if self._lost:
            self._leaving = True
            self._say_lost()

    def finish(self) -> None:
        """The good end: wait until all have come to it."""
        self.wait_for_all("end")
        self._closed = True

    def name(self, index: int) -> str:
        host = self._entries.get(f"host/{index}")
        return f"process {index} of {self._count}" + (f" ({host})" if host else "")

    def lose_service(self) -> None:
        """The store has ended, with the whole host of the first process: leave."""
        with self._changed:
            if not self._lost and not self._closed:
                self._lose(f"{self.name(0)} is gone, and its whole host", TRY_AGAIN)
            self._changed.notify_all()

    def _missing(self, place: str) -> list[int]:
        return [i for i in range(self._count) if f"{place}/{i}" not in self._entries]

    def _set(self, name: str, value: str) -> None:
        self._client.key_value_set(ROOT + name, value, allow_overwrite=True)

    # --- the threads

    def _beat(self) -> None:
        number = 0
        while not self._closed:
            try:
                self._set(f"beat/{self._index}", str(number := number + 1))
                entries = {name.removeprefix(ROOT): value for name, value in self._client.key_value_dir_get(ROOT)}
            except Exception:  # `_watch` says so where it goes on
                time.sleep(self._every)
                continue
            with self._changed:
                self._entries, self._read = entries, time.monotonic()
                self._agree()
                self._look_for_lost()
                self._changed.notify_all()
            time.sleep(self._every)

    def _agree(self) -> None:
        if "stop" in self._entries and self._answer is None:
            self._answer = self._step
            self._set(f"at/{self._index}", str(self._answer))
        answers = [self._entries.get(f"at/{i}") for i in range(self._count)]
        if self._last is None and all(answers):
            self._last = max(int(answer) for answer in answers if answer) + 1

    def _look_for_lost(self) -> None:
        for i in range(self._count):
            value = self._entries.get(f"beat/{i}", "")
            if i == self._index or self._lost or f"end/1/{i}" in self._entries:
                continue
            if failed := self._entries.get(f"failed/{i}"):
                content = json.loads(failed)
                self._lose(f"{self.name(i)} has left: {content['why'].rstrip('.')}", content["exit_code"] or 1)
            elif i not in self._beats or self._beats[i][0] != value:
                self._beats[i] = (value, self._read)
            elif self._read - self._beats[i][1] > SILENT:
                self._lose(f"{self.name(i)} is gone: not a sign of it for {SILENT:.0f} s", TRY_AGAIN)

    def _lose(self, line: str, exit_code: int) -> None:
        self._lost = (line, exit_code)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        """Leave after the one that was lost, unless the main thread does so itself."""
        time.sleep(GRACE)
        if not self._leaving:
            self._leaving = True
            self._say_lost()

    def _say_lost(self) -> None:
        line, exit_code = self._lost or ("", TRY_AGAIN)
        print(f"error: {line[:1].upper()}{line[1:]}; the last complete checkpoint stays.", file=sys.stderr, flush=True)
        self._end(exit_code)

    def _watch(self) -> None:
        """The store itself may fall silent, with the host of the first process."""
        while not self._closed:
            time.sleep(EVERY)
            if time.monotonic() - self._read > SILENT + 5 and not self._lost:
                self._lose(f"{self.name(0)}, which the others meet at, does not answer", TRY_AGAIN)


_peers: list[Peers] = []  # at most one


def join(client: Any, index: int, count: int) -> None:
    """Once, when JAX has joined the other processes."""
    if count > 1:
        _peers.append(Peers(client, index, count))


def compare(facts: Mapping[str, Any]) -> None:
    """Raise UserError, in all processes, where one of the facts, JSON values by name, differs between them."""
    for peers in _peers:
        peers.compare(facts)


def stop_at(step: int, wish: Stop | None) -> Stop | None:
    """`wish`, where this process is alone; else whether all stop after this step, which they do all at once."""
    return _peers[0].stop_at(step, wish) if _peers else wish


def wait_for_all(name: str) -> None:
    """Until every process is here, in the same order of places."""
    for peers in _peers:
        peers.wait_for_all(name)


def leave(why: str, exit_code: int) -> None:
    """End this process alone, on an error, so that the others know; nothing happens where there are no others."""
    for peers in _peers:
        peers.leave(why, exit_code)


def explain() -> None:
    """Where an error comes of the loss of another process, say that instead and end."""
    for peers in _peers:
        peers.explain()


def lose_service() -> bool:
    """JAX's coordination service has ended; False where there are no others, so that nobody says so."""
    for peers in _peers:
        peers.lose_service()
    return bool(_peers)


def finish() -> None:
    """The good end of all processes."""
    for peers in _peers:
        peers.finish()
    _peers.clear()
