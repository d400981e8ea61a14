"""The attribute files of CelebA and CelebA-HQ: line 1 the count, line 2 the names, then `file -1 1 ...`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffrep_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class AttributeList:
    """names: of the k attributes; files: of the n images; values: float32 [n, k], 1 where -1 and 1 say yes, else 0."""

    names: tuple[str, ...]
    files: tuple[str, ...]
    values: np.ndarray


def read(path: Path, number: int) -> AttributeList:
    """The file at `path`, which is to have `number` attributes. Raises UserError where it does not fit itself."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        count, names = int(lines[0]), tuple(lines[1].split())
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"'{path}' does not read as a list of attributes ({error}): line 1 is the count, line 2 the names."
        ) from error
    rows = [line.split(maxsplit=1) for line in lines[2:] if line.strip()]
    if len(names) != number:
        raise UserError(f"'{path}' names {len(names)} attributes, not the published {number}: copy it again.")
    if len(rows) != count:
        raise UserError(f"'{path}' says that it has {count:,} rows, but has {len(rows):,}: copy it again.")
    return AttributeList(names, tuple(row[0] for row in rows), _values(path, rows, number))


def _values(path: Path, rows: Sequence[Sequence[str]], number: int) -> np.ndarray:
    text = " ".join(row[1] if len(row) > 1 else "" for row in rows)
    try:
        signs = np.array(text.split(), np.int8)
    except (ValueError, OverflowError) as error:
        raise UserError(f"'{path}' has something else than -1 and 1 ({error}): copy it again.") from error
    if len(signs) != len(rows) * number:
        wrong = next(i for i, row in enumerate(rows) if len(" ".join(row[1:]).split()) != number)
        has = len(" ".join(rows[wrong][1:]).split())
        raise UserError(f"'{path}' has {has} values for {rows[wrong][0]}, not {number}: copy it again.")
    if bad := set(np.unique(signs)) - {-1, 1}:
        raise UserError(f"'{path}' has the value {bad.pop()}, where -1 and 1 are known: copy it again.")
    return (signs.reshape(len(rows), number) == 1).astype(np.float32)


def text(table: AttributeList) -> str:
    """What `read` reads."""
    signs = np.where(table.values > 0, "1", "-1")
    rows = [f"{file} {' '.join(row)}" for file, row in zip(table.files, signs, strict=True)]
    return "\n".join([str(len(rows)), " ".join(table.names), *rows]) + "\n"
