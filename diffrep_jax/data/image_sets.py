"""Finished images to be measured, as they are: a folder, zip or LMDB of image files, or an array of an .npz file."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.data.decoding import decode
from diffrep_jax.errors import UserError


class ImageSet(Protocol):
    """uint8 [h, w, c], one after the other, none kept in memory."""

    path: Path

    def __len__(self) -> int: ...

    def images(self) -> Iterator[tuple[str, np.ndarray]]:
        """(its name, for an error; the image), in order. Raises UserError where one cannot be read."""
        ...


def open_images(path: Path, arrays: Sequence[str]) -> ImageSet:
    """What `path` holds. arrays: the names that its images may have in an .npz, the first that is there.

    Raises UserError where there are no images, or arrays of other types or shapes.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist; give a folder, zip or LMDB of images, or an .npz.")
    if path.suffix == ".npz":
        return NpzImages(path, arrays)
    return FileImages(path, open_source(path))


def batches(images: ImageSet, batch_size: int, num_images: int) -> Iterator[np.ndarray]:
    """The first `num_images`, uint8 [b, h, w, c], the last batch short. UserError at one of another size."""
    batch: list[np.ndarray] = []
    shape: tuple[int, ...] | None = None
    for number, (name, image) in enumerate(images.images()):
        if number == num_images:
            break
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

    def __init__(self, path: Path, arrays: Sequence[str]):
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                found = next((name for name in arrays if name in names), None)
                if found is None:
                    raise UserError(f"{path} holds {', '.join(names)}, none of {', '.join(arrays)}; rename its images.")
                self._member = f"{found}.npy"
                with archive.open(self._member) as member:
                    self._shape, in_columns, dtype = _header(member)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} is no .npz file that can be read ({error}); write it again.") from None
        if dtype != np.uint8 or len(self._shape) != 4 or self._shape[-1] not in (1, 3) or in_columns:
            raise UserError(f"'{found}' of {path} is {dtype} {self._shape}; images are uint8 [n, h, w, 1 or 3].")

    def __len__(self) -> int:
        return self._shape[0]

    def images(self) -> Iterator[tuple[str, np.ndarray]]:
        size = int(np.prod(self._shape[1:]))
        with zipfile.ZipFile(self.path) as archive, archive.open(self._member) as member:
            _header(member)
            for number in range(len(self)):
                data = member.read(size)
                if len(data) != size:
                    raise UserError(f"{self.path} ends in image {number}; copy it again.")
                yield str(number), np.frombuffer(data, np.uint8).reshape(self._shape[1:])


def _header(member) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether columns come first, type) of an .npy file, which is read up to its data."""
    if np.lib.format.read_magic(member) == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)
