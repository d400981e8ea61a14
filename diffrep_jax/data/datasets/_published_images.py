"""The base of the published data sets: a subclass says which files, how many images, which splits, which crop."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffrep_jax.data import attribute_list, transforms
from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, companion_file, given
from diffrep_jax.data.labels import Labels, TfdsLabels, rows_by_name, rows_by_position
from diffrep_jax.data.names import is_image_name
from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.data.sources.tfds import TfdsSource
from diffrep_jax.errors import UserError

Range = tuple[int, int]  # first image, one after the last


class PublishedImages(SourceImages):
    """The images of one published split, from any source, cropped and resized.

    The splits go by order: of the keys in an LMDB, of the file names in a folder or zip. A TFDS data set has
    its own.
    """

    usual_names: ClassVar[tuple[str, ...]]  # looked for in data_dir, in this order
    published: ClassVar[int]  # number of images in the complete data set
    ranges: ClassVar[dict[str, Range]]  # of each split, in the complete data set
    key_digits: ClassVar[int]
    crop: ClassVar[tuple[int, int, int, int] | None] = None  # top, left, height, width; square images are past it
    attribute_files: ClassVar[tuple[str, ...]] = ()  # in the layout of `attribute_list`
    number_of_attributes: ClassVar[int] = 0

    splits: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.splits = tuple(cls.ranges)
        if cls.attribute_files:
            cls.attributes_from = f"put {cls.attribute_files[0]} into the data directory."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, self.usual_names[0])
        source = open_source(data_dir, self.usual_names)
        entries = self._entries(source, split)
        labels = self._labels(data_dir, source, attributes)
        super().__init__(source, entries, split, (image_size, channels), labels)

    def _entries(self, source: Source, split: str) -> range:
        if split in source.splits:
            return source.splits[split]
        entries = range(*split_range(self.ranges, split, self.published, len(source)))
        if len(source) != self.published:
            logging.getLogger(__name__).warning(
                f"{self.name}: '{source.path}' holds {len(source):,} images, not the published "
                f"{self.published:,}; split '{split}' is its images {entries.start:,} to {entries.stop - 1:,}."
            )
        return entries

    def _labels(self, data_dir: Path, source: Source, attributes: bool) -> Labels | TfdsLabels:
        if isinstance(source, TfdsSource):
            return TfdsLabels(source, attributes)
        if not attributes or not self.attribute_files:
            return Labels()
        file = companion_file(data_dir, source, self.attribute_files)
        if file is None:
            return Labels()
        table = attribute_list.read(file, self.number_of_attributes)
        if source.kind == "lmdb" and not is_image_name(source.key(0)):
            rows = rows_by_position(source, len(table.files), file)
        else:
            rows = rows_by_name(source, {name: row for row, name in enumerate(table.files)}, file)
        return Labels(attribute_names=table.names, attributes=table.values[rows])

    def labels_file(self, keys: Sequence[str]) -> tuple[str, str] | None:
        if len(self.attribute_names) != self.number_of_attributes or not self.attribute_names:
            return None
        values = np.stack([self.labels[entry]["attributes"] for entry in range(len(keys))])
        table = attribute_list.AttributeList(self.attribute_names, tuple(keys), values)
        return self.attribute_files[0], attribute_list.text(table)

    def to_size(self, image: np.ndarray, size: int, place: str) -> np.ndarray:
        return transforms.resize(self.to_square(image, place), size)

    def to_square(self, image: np.ndarray, place: str) -> np.ndarray:
        """The published crop, where there is one and the image is not square already."""
        if self.crop and image.shape[0] != image.shape[1]:
            return transforms.crop(image, *self.crop, place)
        return image


def split_range(ranges: dict[str, Range], split: str, published: int, count: int) -> Range:
    """The images of `split` in a file with `count` of the `published` images.

    A smaller file is divided in the published proportions, with at least one image between two boundaries.
    In a larger one the published ranges stay as they are and the rest is not used.
    """
    if count >= published:
        return ranges[split]
    boundaries = sorted({boundary for pair in ranges.values() for boundary in pair})
    if count < len(boundaries) - 1:
        raise UserError(
            f"There are {count} images, too few for the {len(boundaries) - 1} splits of this data set: "
            "give more images with --data_dir or DIFFREP_DATA."
        )
    scaled = [round(boundary * count / published) for boundary in boundaries]
    for i in range(1, len(scaled)):
        scaled[i] = max(scaled[i], scaled[i - 1] + 1)
    scaled[-1] = count
    for i in reversed(range(len(scaled) - 1)):
        scaled[i] = min(scaled[i], scaled[i + 1] - 1)
    position = dict(zip(boundaries, scaled, strict=True))
    start, stop = ranges[split]
    return position[start], position[stop]
