"""Any images: a folder, an archive, an LMDB or a TFDS data set, with classes by labels.csv or by folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffrep_jax.data import labels_csv
from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, companion_file, given
from diffrep_jax.data.labels import Labels, TfdsLabels, numbered
from diffrep_jax.data.names import parts_of
from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.data.sources.tfds import TfdsSource
from diffrep_jax.errors import UserError

TEST_EVERY = 10
LABELS_FILE = "labels.csv"
SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}  # of folders that are no classes


class Folder(SourceImages):
    """Images of any sizes, resized by the short side and cropped to their centre.

    "test" is every tenth image (the 10th, the 20th, ...; the last of fewer than ten), "train" the rest, "all" both:
    each kind of image is in both, where names are sorted by kind. A TFDS data set keeps its own splits.

    labels.csv lies next to the images; its first column is the file's name, or the key in an LMDB; columns of numbers
    are attributes, a column of words, or called "class", is the class. Without one, folders are classes.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "test")
    key_digits: ClassVar[int] = 7
    attributes_from: ClassVar[str] = "put a labels.csv with columns of numbers next to the images."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, "images (or a zip, or an LMDB)")
        source = open_source(data_dir)
        labels = self._labels(data_dir, source, attributes)
        super().__init__(source, split_entries(source, split), split, (image_size, channels), labels)

    def _labels(self, data_dir: Path, source: Source, attributes: bool) -> Labels | TfdsLabels:
        if isinstance(source, TfdsSource):
            return TfdsLabels(source, attributes)
        file = companion_file(data_dir, source, (LABELS_FILE,))
        labels = labels_csv.read(file, source) if file else Labels()
        class_names, classes = labels.class_names, labels.classes
        if not class_names:
            class_names, classes = folder_classes([source.key(entry) for entry in range(len(source))])
        if not attributes:
            return Labels(class_names, classes)
        return Labels(class_names, classes, labels.attribute_names, labels.attributes)

    def labels_file(self, keys: Sequence[str]) -> tuple[str, str] | None:
        if not self.class_names and not self.attribute_names:
            return None
        return LABELS_FILE, labels_csv.text(self.labels, keys)


def folder_classes(keys: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray | None]:
    """(class names, the class of each image) where each image lies in a folder, and these are two or more; else none.

    Folders around all images, such as a zip's own, and those of splits are not looked at.
    """
    folders = [parts_of(key)[:-1] for key in keys]
    level = 0
    while all(len(parts) > level for parts in folders):
        here = {parts[level] for parts in folders}
        if len(here) > 1 and not here <= SPLIT_NAMES:
            return numbered([parts[level] for parts in folders])
        level += 1
    return (), None


def split_entries(source: Source, split: str) -> Sequence[int] | np.ndarray:
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


Dataset = Folder
