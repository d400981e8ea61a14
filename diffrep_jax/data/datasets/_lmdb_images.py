"""The base of the LMDB data sets: a subclass says which file, how many images, which splits, which crop."""

import logging
from pathlib import Path
from typing import Any, ClassVar

from diffrep_jax.data import transforms
from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.source import LmdbSource, check_index
from diffrep_jax.errors import UserError

Range = tuple[int, int]  # first image, one after the last


class LmdbImages:
    """The images of one split of an LMDB, cropped and resized to [image_size, image_size, channels]."""

    file_names: ClassVar[tuple[str, ...]]  # looked for in data_dir, in this order
    published: ClassVar[int]  # number of images in the complete data set
    ranges: ClassVar[dict[str, Range]]  # of each split, in the complete data set
    crop: ClassVar[tuple[int, int, int, int] | None] = None  # top, left, height, width; square images are past it

    name: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    needs_data_dir: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]
        cls.splits = tuple(cls.ranges)

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int):
        check_request(self.name, self.splits, split, image_size, channels)
        self._source = LmdbSource(find_lmdb(self.name, data_dir, self.file_names))
        self._start, self._stop = split_range(self.ranges, split, self.published, len(self._source))
        self._place = f"split '{split}' of {self.name}"
        self._image_size, self._channels = image_size, channels
        if len(self._source) != self.published:
            logging.getLogger(__name__).warning(
                f"{self.name}: '{self._source.path}' holds {len(self._source):,} images, not the published "
                f"{self.published:,}; split '{split}' is its images {self._start:,} to {self._stop - 1:,}."
            )

    def __len__(self) -> int:
        return self._stop - self._start

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self._start + check_index(index, len(self), self._place)
        place = f"Entry '{self._source.key(entry)}' of '{self._source.path}'"
        image = transforms.decode(self._source[entry], self._channels, place)
        if self.crop and image.shape[0] != image.shape[1]:
            image = transforms.crop(image, *self.crop, place)
        return {"image": transforms.resize(image, self._image_size)}


def find_lmdb(name: str, data_dir: Path | None, file_names: tuple[str, ...]) -> Path:
    """The LMDB in `data_dir`: itself, one with a usual name in it, or else the only *.lmdb in it."""
    remedy = f"give the folder of {file_names[0]} with --data_dir or DIFFREP_DATA."
    if data_dir is None:
        raise UserError(f"The data set '{name}' needs its images: {remedy}")
    if not data_dir.exists():
        raise UserError(f"The data directory '{data_dir}' does not exist: {remedy}")
    if data_dir.is_file() or (data_dir / "data.mdb").is_file():
        return data_dir
    if not any(data_dir.iterdir()):
        raise UserError(f"The data directory '{data_dir}' is empty: {remedy}")
    for file_name in file_names:
        if (data_dir / file_name).exists():
            return data_dir / file_name
    others = sorted(data_dir.glob("*.lmdb"))
    if len(others) == 1:
        logging.getLogger(__name__).warning(
            f"{name}: no {file_names[0]} in '{data_dir}'; reading the only LMDB there, {others[0].name}."
        )
        return others[0]
    found = f"only {', '.join(o.name for o in others)}" if others else "no *.lmdb at all"
    raise UserError(f"There is no {' or '.join(file_names)} in '{data_dir}', {found}: {remedy}")


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
            f"The LMDB has {count} images, too few for the {len(boundaries) - 1} splits of this data set: "
            "give one with more images with --data_dir or DIFFREP_DATA."
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
