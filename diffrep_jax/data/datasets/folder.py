"""Any images: a folder, a zip, an LMDB or a TFDS data set, with a labels.csv where there are labels."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, beside, given
from diffrep_jax.data.labels import Labels, TfdsLabels, rows_by_name
from diffrep_jax.data.sources import Source, natural_order, open_source
from diffrep_jax.data.sources.tfds import TfdsSource
from diffrep_jax.errors import UserError

TEST_EVERY = 10
LABELS_FILE = "labels.csv"


class Folder(SourceImages):
    """Images of any sizes, resized by the short side and cropped to their centre.

    "test" is every tenth image (the 10th, the 20th, ...; the last of fewer than ten), "train" the rest, "all" both:
    each kind of image is in both, where names are sorted by kind. A TFDS data set keeps its own splits.

    labels.csv, beside the images: a heading, then a line for each image. The first column is its file name, or its
    key in an LMDB; columns of numbers are attributes, a column of words, or called "class", is the class.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "test")
    key_digits: ClassVar[int] = 7
    attributes_from: ClassVar[str] = "put a labels.csv with columns of numbers beside the images."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, "images (or a zip, or an LMDB)")
        source = open_source(data_dir)
        labels = self._labels(data_dir, source, attributes)
        super().__init__(source, split_entries(source, split), split, (image_size, channels), labels)

    def _labels(self, data_dir: Path, source: Source, attributes: bool) -> Labels | TfdsLabels:
        if isinstance(source, TfdsSource):
            return TfdsLabels(source, attributes)
        file = beside(data_dir, source, (LABELS_FILE,))
        if file is None:
            return Labels()
        labels = read_labels(file, source)
        return labels if attributes else Labels(labels.class_names, labels.classes)

    def labels_file(self, keys: Sequence[str]) -> tuple[str, str] | None:
        if not self.class_names and not self.attribute_names:
            return None
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["file", *(["class"] if self.class_names else []), *self.attribute_names])
        for entry, key in enumerate(keys):
            known = self.labels[entry]
            name = [self.class_names[known["label"]]] if self.class_names else []
            rows.writerow([key, *name, *map(float, known.get("attributes", ()))])
        return LABELS_FILE, text.getvalue()


def split_entries(source: Source, split: str) -> Sequence[int]:
    """The entries of a split of `Folder`; UserError where there are too few to have any."""
    if split in source.splits:
        return source.splits[split]
    count = len(source)
    if split == "all":
        return range(count)
    if count < 2:
        raise UserError(f"'{source.path}' has {count} image, too few for the split '{split}': use 'all'.")
    every = min(TEST_EVERY, count)
    test = range(every - 1, count, every)
    return test if split == "test" else np.delete(np.arange(count), test)


def read_labels(file: Path, source: Source) -> Labels:
    """A labels.csv, brought into the order of the source. Raises UserError where it does not fit it."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            heading, *rows = [row for row in csv.reader(lines) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"'{file}' does not read as a table ({error}): line 1 is the heading.") from error
    for row in rows:
        if len(row) != len(heading):
            raise UserError(
                f"'{file}' has {len(row)} values for '{row[0]}', but {len(heading)} columns: mend that line."
            )
    by_name = {row[0].strip(): i for i, row in enumerate(rows)}
    if len(by_name) != len(rows):
        raise UserError(f"'{file}' has {len(rows):,} rows for {len(by_name):,} names: give each image one row.")
    order = rows_by_name(source, by_name, file)
    columns = {name.strip(): np.array(column)[order] for name, *column in list(zip(heading, *rows, strict=True))[1:]}
    numbers = {n: values for n, c in columns.items() if n != "class" and (values := _numbers(c)) is not None}
    words = [name for name in columns if name not in numbers]
    if len(words) > 1:
        raise UserError(f"'{file}' has words in the columns {', '.join(words)}: one is the class, drop the others.")
    class_names, classes = _classes(columns[words[0]]) if words else ((), None)
    attributes = np.stack(list(numbers.values()), axis=1) if numbers else None
    return Labels(class_names, classes, tuple(numbers), attributes)


def _classes(column: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """(names in natural order, the number of each row's)."""
    names = sorted(set(column.tolist()), key=natural_order)
    number = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([number[name] for name in column.tolist()])


def _numbers(column: np.ndarray) -> np.ndarray | None:
    """Text as float32, None where some is no finite number."""
    try:
        values = column.astype(np.float32)
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


Dataset = Folder
