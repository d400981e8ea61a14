"""What is known of images besides their pixels: a class, and attributes by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffrep_jax.data.sources import Source
from diffrep_jax.data.sources.tfds import TfdsSource
from diffrep_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of the entries of a source, in its order; what is not known is left out.

    Attributes:
      class_names, classes: their names, and the number of each entry's class, int [n].
      attribute_names, attributes: float32 [n, k]; what an image has or lacks is 1 or 0, a measure is as it is.
    """

    class_names: tuple[str, ...] = ()
    classes: np.ndarray | None = None
    attribute_names: tuple[str, ...] = ()
    attributes: np.ndarray | None = None

    @property
    def binary(self) -> bool:
        """Whether all attributes are 0 or 1."""
        return self.attributes is not None and bool(np.isin(self.attributes, (0, 1)).all())

    def __getitem__(self, entry: int) -> dict[str, Any]:
        """{"label": int, "attributes": float32 [k]}, those that there are."""
        found: dict[str, Any] = {}
        if self.classes is not None:
            found["label"] = int(self.classes[entry])
        if self.attributes is not None:
            found["attributes"] = self.attributes[entry]
        return found


class TfdsLabels:
    """The labels that lie in the entries of a TFDS data set, read with each; as `Labels`."""

    def __init__(self, source: TfdsSource, attributes: bool):
        self._source = source
        self.class_names = source.class_names
        self.attribute_names = source.attribute_names if attributes else ()
        self.binary = source.binary_attributes

    def __getitem__(self, entry: int) -> dict[str, Any]:
        if not self.class_names and not self.attribute_names:
            return {}
        label, attributes = self._source.labels(entry)
        found: dict[str, Any] = {} if label is None else {"label": label}
        if self.attribute_names:
            found["attributes"] = np.array(attributes, np.float32)
        return found


def rows_by_name(source: Source, rows: Mapping[str, int], file: Any) -> np.ndarray:
    """For each entry of `source` the row of a table that has its key, its file name or that without suffix; int [n].

    rows: {name in the table: number of the row}. file: the table's, for the error.
    Raises UserError, with the number of rows and of images, where an image has none.
    """
    stems = {_stem(name): row for name, row in rows.items()}
    found, missing = [], []
    for key in (source.key(i) for i in range(len(source))):
        row = rows.get(key, stems.get(_stem(key)))
        found.append(row)
        if row is None:
            missing.append(key)
    if missing:
        raise UserError(
            f"'{file}' has {len(rows):,} rows, '{source.path}' {len(source):,} images, of which {len(missing):,} have "
            f"no row, such as '{missing[0]}': give the file that belongs to these images."
        )
    return np.array(found)


def rows_by_position(source: Source, count: int, file: Any) -> np.ndarray:
    """Row i for entry i; raises UserError with both numbers where there are not as many of both."""
    if count != len(source):
        raise UserError(
            f"'{file}' has {count:,} rows, '{source.path}' {len(source):,} images: "
            "give the file that belongs to these images."
        )
    return np.arange(count)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0] or name
