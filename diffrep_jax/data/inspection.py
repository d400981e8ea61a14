"""Look at every image of a source: how many there are, of which sizes and kinds, and which do not decode."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode, describe
from diffrep_jax.data.parallel import in_order
from diffrep_jax.data.sources import Source


@dataclasses.dataclass
class Report:
    """sizes: {"width x height": images}; kinds: {"format mode": images}; bad: [(key, what is wrong)]."""

    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def inspect(
    source: Source,
    entries: Sequence[int],
    workers: int,
    progress: Callable[[Iterable[Any], int, str], Iterator[Any]] = lambda items, total, what: iter(items),
) -> Report:
    """Decode these entries of the source, in `workers` threads."""
    report = Report()
    for entry, seen in progress(in_order(lambda i: (i, _look(source, i)), entries, workers), len(entries), "inspect"):
        if isinstance(seen, BadEntry):
            report.bad.append((source.key(entry), str(seen)))
        else:
            size, kind = seen
            report.sizes[size] += 1
            report.kinds[kind] += 1
    return report


def _look(source: Source, entry: int) -> tuple[str, str] | BadEntry:
    try:
        data = source[entry]
        if isinstance(data, np.ndarray):
            return f"{data.shape[1]} x {data.shape[0]}", f"array of {data.shape[2]} channels"
        height, width = decode(data, place=f"Entry '{source.key(entry)}' of '{source.path}'").shape[:2]
        return f"{width} x {height}", " ".join(describe(data))
    except BadEntry as error:
        return error
