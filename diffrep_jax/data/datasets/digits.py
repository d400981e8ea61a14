"""8x8 scans of handwritten digits that ship inside scikit-learn: 1,797 images, 10 classes, no download."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data import transforms
from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.source import ArraySource, check_index

TRAIN_IMAGES = 1500


class Digits:
    """Grey scans (values 0..16) stretched to 0..255 and enlarged bilinearly; 3 channels repeat the grey.

    The split follows the order of the data set, the last 297 being the test. Neighbouring scans come from one
    writer, so the test is mostly of writers who are not in train: harder than a random split (a linear
    classifier on the pixels gets 98 % of that right, 91 % of this), but honest, and the same everywhere.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    needs_data_dir: ClassVar[bool] = False  # data_dir is ignored

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int):
        check_request("digits", self.splits, split, image_size, channels)
        from sklearn.datasets import load_digits

        part = slice(None, TRAIN_IMAGES) if split == "train" else slice(TRAIN_IMAGES, None)
        scans = load_digits()
        pixels = np.rint(scans.images[part] * (255 / 16)).astype(np.uint8)
        self._place = f"split '{split}' of digits"
        self._scans = ArraySource(np.repeat(pixels[..., None], channels, axis=-1), self._place)
        self._labels = scans.target[part]
        self._image_size = image_size

    def __len__(self) -> int:
        return len(self._scans)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = check_index(index, len(self), self._place)
        return {
            "image": transforms.resize(self._scans[index], self._image_size),
            "label": int(self._labels[index]),
        }


Dataset = Digits
