"""Entries that cannot be read: left out and counted up to a limit, each named once in the log, then an error."""

import logging
from typing import Any

from diffrep_jax.errors import UserError


class BadEntry(UserError):
    """One entry is missing, does not decode, or has a size that does not fit; the others may be good."""


class NoneReadable(UserError):
    """Not one of the entries that are wanted can be read."""

    def __init__(self, count: int, first: BadEntry):
        super().__init__(
            f"{first} That leaves none of the {count:,} images asked for: list the bad ones with --task=inspect_data "
            "and mend them, or ask for more images."
        )


class BadEntries:
    """The bad entries that a reader has met, of `count`.

    max_fraction: of `count`; one more is an error. Each process that reads keeps a count of its own.
    """

    def __init__(self, count: int, max_fraction: float):
        if not 0 <= max_fraction < 1:
            raise UserError(f"data.max_bad_fraction is {max_fraction}: use 0 (none) or more, less than 1.")
        self._count, self._max_fraction = count, max_fraction
        self._met: set[int] = set()

    def __len__(self) -> int:
        return len(self._met)

    def note(self, index: int, error: BadEntry) -> None:
        """Log entry `index`, the first time that it is met. Raises UserError where that makes too many."""
        if index in self._met:
            return
        self._met.add(index)
        if len(self._met) > self._max_fraction * self._count:
            raise UserError(
                f"{error} That makes {len(self._met):,} bad of {self._count:,} entries, more than "
                f"data.max_bad_fraction={self._max_fraction} allows: list them all with --task=inspect_data, "
                "then mend them or raise the limit."
            ) from error
        logging.getLogger(__name__).warning(f"Bad entry {len(self._met):,}: {error}")


class Replacing:
    """A data set in which the next good example stands in for a bad one; so it depends on the data alone."""

    def __init__(self, dataset: Any, bad: BadEntries):
        self._dataset, self._bad = dataset, bad

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        while True:  # ends, as `note` raises before all are bad
            try:
                return self._dataset[index]
            except BadEntry as error:
                self._bad.note(index, error)
                index = (index + 1) % len(self)
