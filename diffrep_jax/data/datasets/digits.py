"""8x8 scans of handwritten digits that ship inside scikit-learn: 1,797 images, 10 classes, no download."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages
from diffrep_jax.data.labels import Labels
from diffrep_jax.data.sources.arrays import ArraySource

TRAIN_IMAGES = 1500
ATTRIBUTES = ("ink", "slant", "width", "height")


class Digits(SourceImages):
    """Grey scans (values 0..16) stretched to 0..255 and enlarged bilinearly; 3 channels repeat the grey.

    The split follows the order of the data set, the last 297 being the test. Neighbouring scans come from one
    writer, so the test is mostly of writers who are not in train: harder than a random split (a linear
    classifier on the pixels gets 98 % of that right, 91 % of this), but honest, and the same everywhere.
    Attributes are those of `measure`.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    needs_data_dir: ClassVar[bool] = False  # data_dir is ignored

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        from sklearn.datasets import load_digits

        scans: Any = load_digits()
        pixels = np.rint(scans.images * (255 / 16)).astype(np.uint8)[..., None]
        entries = range(TRAIN_IMAGES) if split == "train" else range(TRAIN_IMAGES, len(pixels))
        labels = Labels(tuple(map(str, scans.target_names)), scans.target)
        if attributes:
            labels = Labels(labels.class_names, labels.classes, ATTRIBUTES, measure(scans.images / 16))
        super().__init__(ArraySource(pixels, self.name), entries, split, (image_size, channels), labels)


def measure(scans: np.ndarray) -> np.ndarray:
    """Ink in [0, 1] of scans, [n, h, w] -> float32 [n, 4]: the `ATTRIBUTES`, from the moments of the ink.

    ink: its mean over the scan. slant: columns to the right for each row upwards. width, height: in pixels, of the
    evenly filled box that is as spread out.
    """
    rows, columns = (np.arange(size, dtype=np.float64) for size in scans.shape[1:])
    mass = scans.sum((1, 2))
    density = scans / mass[:, None, None]
    across, down = density.sum(1), density.sum(2)  # [n, w], [n, h]
    x = columns - (across @ columns)[:, None]
    y = rows - (down @ rows)[:, None]
    xx, yy = (across * x**2).sum(1), (down * y**2).sum(1)
    xy = np.einsum("nhw,nh,nw->n", density, y, x)
    # n pixels side by side have the variance (n^2 - 1) / 12; rows count downwards, so up is -y.
    measures = [scans.mean((1, 2)), -xy / yy, np.sqrt(12 * xx + 1), np.sqrt(12 * yy + 1)]
    return np.stack(measures, axis=1).astype(np.float32)


Dataset = Digits
