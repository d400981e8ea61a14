"""What is known of images besides their pixels: a class, and attributes by name."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.data import names
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
    def binary(self) -> tuple[bool, ...]:
        """For each attribute, whether all its values are 0 or 1: what images have or lack, no measure."""
        return () if self.attributes is None else tuple(map(bool, np.all(np.isin(self.attributes, (0, 1)), axis=0)))

    def __getitem__(self, entry: int) -> dict[str, Any]:
        """{"label": int, "attributes": float32 [k]}, those that there are."""
        known: dict[str, Any] = {}
        if self.classes is not None:
            known["label"] = int(self.classes[entry])
        if self.attributes is not None:
            known["attributes"] = self.attributes[entry]
        return known


class TfdsLabels:
    """The labels that lie in the entries of a TFDS data set, read with each; as `Labels`."""

    def __init__(self, source: TfdsSource, attributes: bool):
        self._source = source
        self.class_names = source.class_names
        self.attribute_names = source.attribute_names if attributes else ()
        self.binary = source.binary_attributes if attributes else ()

    def __getitem__(self, entry: int) -> dict[str, Any]:
        if not self.class_names and not self.attribute_names:
            return {}
        label, attributes = self._source.labels(entry)
        known: dict[str, Any] = {} if label is None else {"label": label}
        if self.attribute_names:
            known["attributes"] = np.array(attributes, np.float32)
        return known


def has_or_lacks(column: np.ndarray) -> np.ndarray:
    """A column of -1 and 1 as 0 and 1, since it says what an image has or lacks; others are measures, as they are."""
    return np.maximum(column, 0) if np.isin(column, (-1, 1)).all() else column


def numbered(class_of_each: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """(class names in natural order, the number of each entry's class)."""
    class_names = sorted(set(class_of_each), key=names.natural_order)
    number = {name: i for i, name in enumerate(class_names)}
    return tuple(class_names), np.array([number[name] for name in class_of_each])


def rows_by_name(source: Source, rows: Mapping[str, int], file: Any) -> np.ndarray:
    """For each entry of `source` the row of a table that has its name, see `names.match`; int [n].

    rows: {name in the table: number of the row}. file: the table's, for the error.
    Raises UserError, with the number of rows and of images, where an image has none or it is not clear which.
    """
    keys = [source.key(i) for i in range(len(source))]
    own = names.match(keys, rows, file)
    missing = [key for key, row in zip(keys, own, strict=True) if row is None]
    if missing:
        raise UserError(
            f"'{file}' has {len(rows):,} rows, '{source.path}' {len(source):,} images, of which {len(missing):,} have "
            f"no row, such as '{missing[0]}':{names.likely_cause(missing[0], rows)} Give the file that belongs to "
            "these images, with a row for each."
        )
    return np.array(own, int)


def rows_by_position(source: Source, count: int, file: Any) -> np.ndarray:
    """Row i for entry i; raises UserError with both numbers where there are not as many of both."""
    if count != len(source):
        raise UserError(
            f"'{file}' has {count:,} rows, '{source.path}' {len(source):,} images: "
            "give the file that belongs to these images."
        )
    return np.arange(count)
