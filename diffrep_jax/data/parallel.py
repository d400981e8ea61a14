"""A function over many items in threads, results in order and only a few of them in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 8  # results a thread that may wait for the caller


def in_order(function: Callable[[S], T], items: Iterable[S], workers: int) -> Iterator[T]:
    """`map(function, items)` by `workers` threads: faster where the work is Pillow's, which frees the interpreter."""
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
