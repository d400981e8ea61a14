"""The attribute files of CelebA and CelebA-HQ, as their authors and torchvision have them or as Kaggle's csv.

Of the authors: line 1 the count, line 2 the names, then `file -1 1 ...`. A csv: a heading, then `file,-1,1,...`.
"""

import collections
import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffrep_jax.data.text_files import read_text
from diffrep_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class AttributeList:
    """names: of the k attributes; files: of the n images; values: float32 [n, k], 1 where the file says 1, else 0."""

    names: tuple[str, ...]
    files: tuple[str, ...]
    values: np.ndarray


def read(path: Path, number: int) -> AttributeList:
    """The file at `path`, which is to have `number` attributes. Raises UserError where it contradicts itself."""
    content = read_text(path)
    heading = content.split("\n", 1)[0]
    names, rows, count = _of_csv(path, content) if "," in heading else _of_authors(path, content)
    if len(names) != number:
        raise UserError(f"'{path}' names {len(names)} attributes, not the published {number}: copy it again.")
    if len(rows) != count:
        raise UserError(f"'{path}' says that it has {count:,} rows, but has {len(rows):,}: copy it again.")
    values, files = _values(path, rows, number), tuple(row[0] for row in rows)
    for what, given in (("attributes", names), ("rows", files)):
        if twice := [name for name, times in collections.Counter(given).items() if times > 1]:
            raise UserError(f"'{path}' has '{twice[0]}' more than once among its {what}: copy it again.")
    return AttributeList(names, files, values)


def _of_authors(path: Path, content: str) -> tuple[tuple[str, ...], list[list[str]], int]:
    """(names, [[file, value, ...]], the number of rows that it says it has)"""
    lines = content.rstrip("\n").split("\n")
    try:
        count, names = int(lines[0]), tuple(lines[1].split())
    except (ValueError, IndexError) as error:
        raise UserError(
            f"'{path}' does not read as a list of attributes ({error}): line 1 is the count, line 2 the names; "
            "in a csv line 1 is the heading."
        ) from error
    return names, [line.split() for line in lines[2:] if line.strip()], count


def _of_csv(path: Path, content: str) -> tuple[tuple[str, ...], list[list[str]], int]:
    """The same; a csv does not say how many rows it has."""
    try:
        heading, *rows = [row for row in csv.reader(io.StringIO(content)) if any(map(str.strip, row))]
    except (ValueError, csv.Error) as error:
        raise UserError(f"'{path}' does not read as a list of attributes ({error}): copy it again.") from error
    return tuple(map(str.strip, heading[1:])), [[cell.strip() for cell in row] for row in rows], len(rows)


def _values(path: Path, rows: Sequence[Sequence[str]], number: int) -> np.ndarray:
    for row in rows:
        if len(row) != number + 1:
            raise UserError(f"'{path}' has {len(row) - 1} values for {row[0]}, not {number}: copy it again.")
    try:
        signs = np.array([row[1:] for row in rows], np.int8).reshape(len(rows), number)
    except (ValueError, OverflowError) as error:
        raise UserError(f"'{path}' has something else than -1 and 1 ({error}): copy it again.") from error
    no = 0 if signs.size and signs.min() == 0 else -1  # copies that say 0 for "no" are about
    if bad := set(np.unique(signs)) - {no, 1}:
        raise UserError(f"'{path}' has the value {bad.pop()}, where {no} and 1 are known: copy it again.")
    return (signs == 1).astype(np.float32)


def text(table: AttributeList) -> str:
    """What `read` reads, in the authors' form."""
    signs = np.where(table.values > 0, "1", "-1")
    rows = [f"{file} {' '.join(row)}" for file, row in zip(table.files, signs, strict=True)]
    return "\n".join([str(len(rows)), " ".join(table.names), *rows]) + "\n"
