"""The base of all data sets: entries of a source, decoded and brought to size, with their labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data import transforms
from diffrep_jax.data.decoding import decode
from diffrep_jax.data.fingerprint import digest
from diffrep_jax.data.labels import Labels, TfdsLabels
from diffrep_jax.data.sources import Source, check_index
from diffrep_jax.errors import UserError


class SourceImages:
    """Some entries of a source as examples. A subclass opens the source and chooses the entries.

    Attributes:
      source: all of the data; split: its name; entries: the number in the source of each of its images.
      labels: of all entries of the source.
    """

    name: ClassVar[str]
    needs_data_dir: ClassVar[bool] = True
    key_digits: ClassVar[int | None] = None  # of the keys in an LMDB that `prepare` writes; None: it writes none
    attributes_from: ClassVar[str] = "use another data set."  # what to do where attributes are missing

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    def __init__(
        self,
        source: Source,
        entries: Sequence[int] | np.ndarray,
        split: str,
        shape: tuple[int, int],
        labels: Labels | TfdsLabels,
    ):
        """shape: (image_size, channels)."""
        self.source, self.entries, self.split, self.labels = source, entries, split, labels
        self._place = f"split '{split}' of {self.name}"
        self._image_size, self._channels = shape

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.labels.class_names

    @property
    def attribute_names(self) -> tuple[str, ...]:
        return self.labels.attribute_names

    @property
    def binary_attributes(self) -> tuple[bool, ...]:
        """For each attribute, whether it is 0 or 1, what an image has or lacks; else it is a measure."""
        return self.labels.binary

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = int(self.entries[check_index(index, len(self), self._place)])
        value = self.source[entry]
        place = f"Entry '{self.source.key(entry)}' of '{self.source.path}'"
        if isinstance(value, np.ndarray):
            image = transforms.to_channels(value, self._channels)
        else:
            image = decode(value, self._channels, place)
        return {"image": self.to_size(image, self._image_size, place), **self.labels[entry]}

    def labels_of(self, index: int) -> dict[str, Any]:
        """An example without its image, which is not read."""
        return self.labels[int(self.entries[check_index(index, len(self), self._place)])]

    def fingerprint(self) -> str:
        """What tells these images, in this order, from others, also from others of the same names."""
        return digest(self.source.fingerprint(), np.asarray(self.entries, "<i8").tobytes())

    def labels_file(self, keys: Sequence[str]) -> tuple[str, str] | None:
        """(name, text) of a file with the labels of all entries, for an LMDB that has `keys`; None without labels."""
        return None

    @property
    def statistics(self) -> Mapping[str, np.ndarray]:
        return {}

    def to_size(self, image: np.ndarray, size: int, place: str) -> np.ndarray:
        """uint8 [h, w, c] -> [size, size, c]. `place` names the image in an error."""
        return transforms.resize(image, size)


def given(name: str, data_dir: Path | None, example: str) -> Path:
    """`data_dir`, if it exists and holds something; `example` says what it should hold."""
    remedy = f"give the folder of {example} with --data_dir or DIFFREP_DATA."
    if data_dir is None:
        raise UserError(f"The data set '{name}' needs its images: {remedy}")
    try:
        if not data_dir.exists():
            raise UserError(f"The data directory '{data_dir}' does not exist: {remedy}")
        if data_dir.is_dir() and not any(data_dir.iterdir()):
            raise UserError(f"The data directory '{data_dir}' is empty: {remedy}")
    except OSError as error:
        raise UserError(f"The data directory '{data_dir}' cannot be read ({error.strerror}): {remedy}") from error
    return data_dir


def companion_file(data_dir: Path, source: Source, file_names: Sequence[str]) -> Path | None:
    """The first of `file_names` in the data directory, in the source in it, or in the folders around that."""
    around = [source.path, *source.path.parents[:2]] if source.path else []
    folders = [data_dir, *(folder for folder in around if folder == data_dir.parent or data_dir in folder.parents)]
    places = [folder / name for folder in folders for name in file_names]
    return next((place for place in places if place.is_file()), None)
