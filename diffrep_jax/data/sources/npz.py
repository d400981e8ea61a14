"""A source that is an array of images in an .npz or .npy file, as guided-diffusion and NumPy write them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fingerprint import digest
from diffrep_jax.data.npz import MAX_IN_MEMORY, open_array
from diffrep_jax.data.sources import check_index
from diffrep_jax.data.sources._positional import PositionalFile
from diffrep_jax.errors import UserError


class NpzSource:
    """The rows of uint8 [n, h, w, 1 or 3]; a compressed array is unpacked into memory, others stay on disk."""

    kind: ClassVar[str] = "npz"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: Path):
        self.path = path
        self._array = open_array(path)
        self._file, self._pixels = None, None
        if self._array.start is not None:
            self._file = PositionalFile(path)
        elif (size := self._array.image_size * len(self)) > MAX_IN_MEMORY:
            raise UserError(f"{path} is compressed and has {size:,} bytes of pixels; write it with numpy.savez.")
        else:
            self._pixels = np.stack(list(self._array.images()))

    def __len__(self) -> int:
        return self._array.shape[0]

    def key(self, index: int) -> str:
        return str(check_index(index, len(self), str(self.path)))

    def __getitem__(self, index: int) -> np.ndarray:
        number = check_index(index, len(self), str(self.path))
        if self._pixels is not None:
            return self._pixels[number]
        assert self._file is not None and self._array.start is not None
        size = self._array.image_size
        try:
            data = self._file.read(size, self._array.start + number * size)
        except (ValueError, OSError) as error:
            raise BadEntry(f"Image {number} of '{self.path}' cannot be read ({error}): copy it again.") from error
        return np.frombuffer(data, np.uint8).reshape(self._array.shape[1:])

    def fingerprint(self) -> str:
        if self._pixels is not None:
            return digest(self._pixels.shape, self._pixels.tobytes())
        assert self._file is not None
        return self._file.fingerprint()
