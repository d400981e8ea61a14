"""Finished images to be measured, as they are: a folder, zip or LMDB of image files, or an array of an .npz file."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from diffrep_jax.data.decoding import decode
from diffrep_jax.data.npz import ImageArray, open_array
from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.errors import UserError


class ImageSet(Protocol):
    """uint8 [h, w, c], one after the other, none kept in memory."""

    @property
    def path(self) -> Path: ...

    def __len__(self) -> int: ...

    def images(self) -> Iterator[tuple[str, np.ndarray]]:
        """(its name, for an error; the image), in order. Raises UserError where one cannot be read."""
        ...


def open_images(path: Path, arrays: Sequence[str]) -> ImageSet:
    """What `path` holds. arrays: the names that its images may have in an .npz, the first that is there, or
    arr_0 as guided-diffusion has it.

    Raises UserError where there are no images, or arrays of other types or shapes.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder, zip or LMDB of images, or an .npz.")
    if path.suffix in (".npz", ".npy"):
        return NpzImages(open_array(path, arrays))
    return FileImages(path, open_source(path))


def batches(images: ImageSet, batch_size: int, num_images: int) -> Iterator[np.ndarray]:
    """The first `num_images`, uint8 [b, h, w, c], the last batch short. UserError at one of another size."""
    batch: list[np.ndarray] = []
    shape: tuple[int, ...] | None = None
    for name, image in itertools.islice(images.images(), num_images):
        shape = shape or image.shape
        if image.shape != shape:
            sizes = [f"{w}x{h}" for h, w, _ in (shape, image.shape)]
            raise UserError(f"{images.path} mixes sizes: {sizes[0]}, and {sizes[1]} at '{name}'; make them one size.")
        batch.append(image)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)


class FileImages:
    """The images of a source in the order of their names, as RGB."""

    def __init__(self, path: Path, source: Source):
        self.path, self._source = path, source

    def __len__(self) -> int:
        return len(self._source)

    def images(self) -> Iterator[tuple[str, np.ndarray]]:
        for number in range(len(self)):
            name, value = self._source.key(number), self._source[number]
            yield name, value if isinstance(value, np.ndarray) else decode(value, 3, f"'{name}' of {self.path}")


class NpzImages:
    """An array uint8 [n, h, w, c] of an .npz, read image by image."""

    def __init__(self, array: ImageArray):
        self.path, self._array = array.path, array

    def __len__(self) -> int:
        return self._array.shape[0]

    def images(self) -> Iterator[tuple[str, np.ndarray]]:
        for number, image in enumerate(self._array.images()):
            yield str(number), image
