"""A source of images that are in memory already."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from diffrep_jax.data.fingerprint import digest
from diffrep_jax.data.sources import check_index


class ArraySource:
    """The rows of one array, uint8 [n, h, w, c], or codes [n, d]."""

    kind: ClassVar[str] = "array"
    path = None
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, array: np.ndarray, name: str = "array"):
        self._array = np.asarray(array)
        self._name = name

    def __len__(self) -> int:
        return len(self._array)

    def key(self, index: int) -> str:
        return str(check_index(index, len(self), self._name))

    def __getitem__(self, index: int) -> np.ndarray:
        return self._array[check_index(index, len(self), self._name)]

    def fingerprint(self) -> str:
        return digest(self._array.dtype.str, self._array.shape, np.ascontiguousarray(self._array).tobytes())
