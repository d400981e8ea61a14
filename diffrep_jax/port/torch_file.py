"""PyTorch's files without PyTorch, and without running them: tensors are mapped, everything else stays a name.

A file of `torch.save` is a pickle that names functions to call, and the numbers of its tensors. Of these names only
those that rebuild a tensor or a dict have a meaning here. Any other becomes a placeholder, which takes calls, state and
items and does nothing, so that a checkpoint of a trainer opens whatever classes it mentions.
"""

import dataclasses
import math
import mmap
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of files before PyTorch 1.6
_TYPES = {
    "Double": np.float64,
    "Float": np.float32,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Long": np.int64,
    "Int": np.int32,
    "Short": np.int16,
    "Char": np.int8,
    "Byte": np.uint8,
    "Bool": np.bool_,
}
STORAGES = {f"{name}Storage": np.dtype(kind) for name, kind in _TYPES.items()}


class Placeholder:
    """What stands for a name without a meaning here; each name has its own subclass, whose `path` it is."""

    path = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any):
        """Takes anything, keeps nothing."""

    def _ignore(self, *args: Any, **kwargs: Any) -> "Placeholder":
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _ignore


class _Fixed:
    """What a pickle may not change once it is there."""

    def __setstate__(self, *state: Any) -> None:
        """Keeps nothing."""


class Dict(_Fixed, dict):
    """An OrderedDict, whose attributes (`_metadata` of a state dict) are dropped."""


@dataclasses.dataclass(frozen=True)
class Storage(_Fixed):
    """Numbers of one type in a file, in a row; `key`: their name there."""

    key: str
    dtype: np.dtype
    count: int

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor(_Fixed):
    """A view of a storage: `offset` and `stride` count its elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self):
        sizes = (self.offset, *self.shape, *self.stride)
        if len(self.shape) != len(self.stride) or any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError("a tensor has a shape that none can have")
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if math.prod(self.shape) and self.offset + reach >= self.storage.count:
            raise ValueError("a tensor goes beyond its numbers")


@dataclasses.dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
      content: dicts, lists, tuples, numbers and text, with a `Tensor` or a `Placeholder` here and there.
      names: the names that became placeholders, as in "builtins.print".
      mapped: the bytes of the file; starts: where among them each storage begins, by its key.
    """

    content: Any
    names: Sequence[str]
    mapped: np.ndarray
    starts: Mapping[str, int]

    def array(self, tensor: Tensor) -> np.ndarray:
        """The numbers, not to be written to: they stay in the file until they are used."""
        storage = tensor.storage
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, storage.dtype)
        start = self.starts[storage.key]
        numbers = self.mapped[start : start + storage.bytes].view(storage.dtype)
        steps = tuple(step * storage.dtype.itemsize for step in tensor.stride)
        view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps, writeable=False)
        return view if view.flags.aligned else view.copy()


def read(path: pathlib.Path) -> TorchFile:
    """The content of a file. Raises ValueError, KeyError and many more where it is damaged or of another kind."""
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        read_it = _read_zip if mapped[:2].tobytes() == b"PK" else _read_old
        reader, content, starts = read_it(file, mapped)
    for key, storage in reader.storages.items():
        if starts[key] + storage.bytes > len(mapped):
            raise ValueError(f"storage {key} is cut short")
    return TorchFile(content, tuple(reader.names), mapped, starts)


def _read_zip(file: IO[bytes], mapped: np.ndarray) -> tuple["_Reader", Any, dict[str, int]]:
    """<name>/data.pkl and, for each storage, <name>/data/<key>; nothing in it is compressed."""
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "constants.pkl" in entries:
            raise ValueError("it is a TorchScript program")
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise ValueError("it was compressed")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError("its numbers are in big-endian order")
        reader = _Reader(archive.open(entries["data.pkl"]))
        content = reader.load()
    starts = {}
    for key, storage in reader.storages.items():
        info = entries[f"data/{key}"]
        if info.file_size < storage.bytes:
            raise ValueError(f"storage {key} is cut short")
        name, extra = struct.unpack("<HH", mapped[info.header_offset + 26 : info.header_offset + 30].tobytes())
        starts[key] = info.header_offset + 30 + name + extra
    return reader, content, starts


def _read_old(file: IO[bytes], mapped: np.ndarray) -> tuple["_Reader", Any, dict[str, int]]:
    """Five pickles (magic number, version, machine, content, storages), then length and numbers of each storage."""
    magic, _, machine = [_Reader(file).load() for _ in range(3)]
    if magic != MAGIC or not machine["little_endian"]:
        raise ValueError("it is another pickle")
    reader = _Reader(file)
    content, keys = reader.load(), _Reader(file).load()
    starts, first = {}, file.tell()
    for key in keys:
        (count,) = struct.unpack("<q", mapped[first : first + 8].tobytes())
        if count < reader.storages[key].count:
            raise ValueError(f"storage {key} is cut short")
        starts[key] = first + 8
        first += 8 + count * reader.storages[key].dtype.itemsize
    return reader, content, starts


class _Reader(pickle.Unpickler):
    """An unpickler to which no name means anything but the few of `find_class`."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")
        self.names: dict[str, type[Placeholder]] = {}
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        path = f"{module}.{name}"
        if path in _MEANT:
            return _MEANT[path]
        if path not in self.names:
            self.names[path] = type("Placeholder", (Placeholder,), {"path": path})
        return self.names[path]

    def persistent_load(self, pid: Any) -> Any:
        """("storage", its type, key, device, number of elements, ...), or a module with its source."""
        if pid[0] == "module":
            return pid[1]
        _, kind, key, _, count, *_ = pid
        if not isinstance(kind, _StorageType) or type(count) is not int or count < 0:
            return _of_unknown_type()
        storage = Storage(str(key), kind.dtype, count)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} has two sizes")
        return storage


@dataclasses.dataclass(frozen=True)
class _StorageType(_Fixed):
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Call(_Fixed):
    """A function that a pickle may call, and not change."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


def _of_unknown_type() -> Placeholder:
    return type("Placeholder", (Placeholder,), {"path": "a tensor of another type"})()


def _tensor(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> Any:
    return Tensor(storage, offset, tuple(shape), tuple(stride)) if isinstance(storage, Storage) else _of_unknown_type()


_MEANT: Mapping[str, Any] = {
    "collections.OrderedDict": Dict,
    "torch._utils._rebuild_tensor": _Call(_tensor),
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(lambda data, *_: data),
    **{f"torch.{name}": _StorageType(dtype) for name, dtype in STORAGES.items()},
}
