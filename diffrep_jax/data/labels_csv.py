"""labels.csv: a heading, then a line for each image: its name, numbers, and at most one column of words, its class."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffrep_jax.data.labels import Labels, TfdsLabels, has_or_lacks, numbered, rows_by_name
from diffrep_jax.data.names import is_image_name
from diffrep_jax.data.sources import Source
from diffrep_jax.data.text_files import read_text
from diffrep_jax.errors import UserError

CLASS = "class"  # the column that holds the class, also where that looks like a number
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
TRUTH = {"true": 1.0, "false": 0.0}
MISSING = {"", "na", "n/a", "none", "null"}  # and what Python takes for a number, but is not finite
LARGEST = float(np.finfo(np.float32).max)


def read(file: Path, source: Source) -> Labels:
    """A labels.csv, brought into the order of the source. Raises UserError where it does not fit it."""
    heading, rows = _table(file)
    by_name = {row[0]: i for i, row in enumerate(rows)}
    if len(by_name) != len(rows):
        twice = next(row[0] for i, row in enumerate(rows) if by_name[row[0]] != i)
        raise UserError(
            f"'{file}' has {len(rows):,} rows for {len(by_name):,} names, '{twice}' twice: keep one of them."
        )
    _check_first_column(file, heading, rows)
    order = rows_by_name(source, by_name, file)
    numbers: dict[str, np.ndarray] = {}
    words: dict[str, list[str]] = {}
    for number, name in enumerate(heading[1:], start=1):
        cells = [rows[row][number] for row in order]
        values = None if name == CLASS else _numbers(file, name, cells, [rows[row][0] for row in order])
        if values is None:
            words[name] = cells
        else:
            numbers[name] = has_or_lacks(values)
    if len(words) > 1:
        raise UserError(f"'{file}' has words in the columns {', '.join(words)}: one is the class, drop the others.")
    class_names, classes = (), None
    for name, cells in words.items():
        if "" in cells:
            raise UserError(f"'{file}' has no {name} for '{rows[order[cells.index('')]][0]}': give each image one.")
        class_names, classes = numbered(cells)
    attributes = np.stack(list(numbers.values()), axis=1) if numbers else None
    return Labels(class_names, classes, tuple(numbers), attributes)


def text(labels: Labels | TfdsLabels, keys: Sequence[str]) -> str:
    """What `read` reads, for a source that has these keys."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["file", *([CLASS] if labels.class_names else []), *labels.attribute_names])
    for entry, key in enumerate(keys):
        known = labels[entry]
        name = [labels.class_names[known["label"]]] if labels.class_names else []
        writer.writerow([key, *name, *map(float, known.get("attributes", ()))])
    return stream.getvalue()


def _table(file: Path) -> tuple[list[str], list[list[str]]]:
    """(heading, rows), as many cells in each, none with blanks around it."""
    try:
        lines = csv.reader(io.StringIO(read_text(file)))
        table = [[cell.strip() for cell in row] for row in lines if any(map(str.strip, row))]
    except (ValueError, csv.Error) as error:
        raise UserError(f"'{file}' does not read as a table ({error}): line 1 is the heading.") from error
    if not table:
        raise UserError(
            f"'{file}' is empty: line 1 is the heading, such as file,class,age, then comes a line for each image; or "
            "remove the file."
        )
    heading, *rows = table
    for mark, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (" ", "blanks")):
        if mark in heading[0] and (mark != " " or all(len(row) == 1 and mark in row[0] for row in [heading, *rows])):
            raise UserError(f"'{file}' has {what} between its columns: save it with commas.")
    if is_image_name(heading[0]):
        raise UserError(f"'{file}' begins with the image '{heading[0]}': line 1 is the heading, such as file,class.")
    if "" in heading:
        raise UserError(f"'{file}' has no name for column {heading.index('') + 1}: name it in line 1, or drop it.")
    if twice := [name for name in heading if heading.count(name) > 1]:
        raise UserError(f"'{file}' has two columns '{twice[0]}': give them different names.")
    for row in rows:
        if len(row) != len(heading):
            raise UserError(
                f"'{file}' has {len(row)} values for '{row[0]}', but {len(heading)} columns: mend that line."
            )
        if not row[0]:
            raise UserError(f"'{file}' has a line without a file name, {','.join(row)[:80]}: mend that line.")
    return heading, rows


def _check_first_column(file: Path, heading: list[str], rows: list[list[str]]) -> None:
    """Raise UserError where another column names the images: a number of the row would be taken for a name."""
    if any(is_image_name(row[0]) for row in rows):
        return
    for number, name in enumerate(heading[1:], start=1):
        if rows and all(is_image_name(row[number]) for row in rows):
            raise UserError(f"'{file}' has its file names in column '{name}', not in the first one: put them there.")


def _numbers(file: Path, column: str, cells: Sequence[str], images: Sequence[str]) -> np.ndarray | None:
    """A column as float32, None where none is a number. UserError where only some are: a gap is no class."""
    values = [_number(cell) for cell in cells]
    if not any(value is not None for value in values):
        if cells and all(map(DECIMAL_COMMA.fullmatch, cells)):
            raise UserError(f"'{file}' has decimal commas in column '{column}', such as '{cells[0]}': write points.")
        if cells and all(map(_is_missing, cells)):
            raise UserError(
                f"'{file}' has no value in column '{column}', but '{cells[0]}' for '{images[0]}': give each image "
                f"one, drop the column, or call it '{CLASS}' if it is one."
            )
        return None
    for cell, value, image in zip(cells, values, images, strict=True):
        if value is None:
            raise UserError(
                f"'{file}' has numbers in column '{column}', but '{cell}' for '{image}': mend that line, or "
                f"call the column '{CLASS}' if it is one."
            )
    return np.array(values, np.float32)


def _number(cell: str) -> float | None:
    """The finite number that a cell is, true and false being 1 and 0."""
    if cell.lower() in TRUTH:
        return TRUTH[cell.lower()]
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and "_" not in cell else None


def _is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value, or has none that float32 holds."""
    try:
        return not abs(float(cell)) <= LARGEST
    except ValueError:
        return cell.lower() in MISSING
