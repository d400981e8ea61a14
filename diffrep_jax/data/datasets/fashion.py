"""Fashion-MNIST (Xiao et al. 2017): 70,000 grey 28x28 pictures of clothes, 10 classes; IDX files or TFDS."""

import gzip
import math
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, given
from diffrep_jax.data.labels import Labels, TfdsLabels
from diffrep_jax.data.sources import open_source
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.data.sources.tfds import TfdsSource
from diffrep_jax.errors import UserError

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
MAX_BYTES = 1 << 30  # of an unpacked file
PREFIX = {"train": "train", "test": "t10k"}  # of the published files


class Fashion(SourceImages):
    """The published split, 60,000 and 10,000. IDX files, with .gz or without, lie in data_dir.

    Debian's package dataset-fashion-mnist puts them in /usr/share/datasets/fashion-mnist.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, "train-images-idx3-ubyte.gz and the other three")
        shape = (image_size, channels)
        if _find(data_dir, "train-images-idx3-ubyte") is None:
            source = open_source(data_dir, ("fashion_mnist",))
            if not isinstance(source, TfdsSource):
                raise UserError(
                    f"'{data_dir}' has neither fashion's IDX files nor TFDS's fashion_mnist: give one of them."
                )
            if split not in source.splits:
                raise UserError(f"'{source.path}' has no split '{split}': prepare it again.")
            super().__init__(source, source.splits[split], split, shape, TfdsLabels(source, attributes))
            return
        images = _read_idx(data_dir, f"{PREFIX[split]}-images-idx3-ubyte", 3)
        classes = _read_idx(data_dir, f"{PREFIX[split]}-labels-idx1-ubyte", 1)
        if len(images) != len(classes):
            raise UserError(
                f"'{data_dir}' has {len(images):,} images and {len(classes):,} labels for '{split}': copy both again."
            )
        source = ArraySource(images[..., None], f"{split} of {self.name}")
        super().__init__(source, range(len(images)), split, shape, Labels(CLASSES, classes))


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes: 0, 0, 8, the number of dimensions, each size as 4 bytes, the values."""
    path = _find(folder, name)
    if path is None:
        raise UserError(f"There is no {name}.gz in '{folder}': put all four files of the data set there.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
                raise UserError(f"'{path}' is no IDX file of bytes in {dimensions} dimensions: copy it again.")
            shape = np.frombuffer(header, ">u4", dimensions, offset=4).tolist()
            if (size := math.prod(shape)) > MAX_BYTES:
                raise UserError(f"'{path}' says that it has {size:,} bytes, which is no Fashion-MNIST: copy it again.")
            data = file.read(size + 1)  # no more is unpacked, whatever there is
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"'{path}' does not unpack ({error}): copy it again.") from error
    if len(data) != size:
        has = f"{len(data):,}" if len(data) < size else f"more than {size:,}"
        raise UserError(f"'{path}' has {has} bytes, not {size:,}: copy it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


Dataset = Fashion
