"""Files as `torch.save` writes them, without PyTorch: the pickle opcode by opcode, so that it may be a crafted one."""

import dataclasses
import struct
import zipfile

import numpy as np

STORAGES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage", "float16": "HalfStorage"}


@dataclasses.dataclass(frozen=True)
class Name:
    """A global, as in Name("collections", "OrderedDict")."""

    module: str
    name: str


@dataclasses.dataclass(frozen=True)
class Call:
    """function(*args), and then `state` is set."""

    function: Name
    args: tuple
    state: object = None


@dataclasses.dataclass(frozen=True)
class Stored:
    """A persistent id."""

    pid: tuple


@dataclasses.dataclass(frozen=True)
class Strided:
    """A tensor that sees `array` in another way."""

    array: np.ndarray
    offset: int
    shape: tuple
    stride: tuple


def write(path, content, old=False, name="archive"):
    """A zip, or with `old` what PyTorch wrote before 1.6."""
    arrays = []
    pickled = b"\x80\x02" + _pickled(content, arrays, old) + b"."
    if old:
        system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
        head = b"".join(b"\x80\x02" + _pickled(x, [], old) + b"." for x in (0x1950A86A20F9469CFC6C, 1001, system))
        keys = b"\x80\x02" + _pickled([str(i) for i in range(len(arrays))], [], old) + b"."
        data = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in arrays)
        path.write_bytes(head + pickled + keys + data)
        return path
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.pkl", pickled)
        archive.writestr(f"{name}/byteorder", "little")
        for i, array in enumerate(arrays):
            entry = zipfile.ZipInfo(f"{name}/data/{i}")
            start = archive.fp.tell() + 30 + len(entry.filename)  # numbers begin at multiples of 64, as PyTorch's do
            padding = -(start + 4) % 64
            entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
            archive.writestr(entry, array.tobytes())
        archive.writestr(f"{name}/version", "3\n")
    return path


def _pickled(value, arrays, old):
    rest = lambda x: _pickled(x, arrays, old)  # noqa: E731
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        return f"I{value}\n".encode()
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, tuple | list):
        return b"(" + b"".join(map(rest, value)) + (b"t" if isinstance(value, tuple) else b"l")
    if isinstance(value, dict):
        return b"}(" + b"".join(rest(key) + rest(item) for key, item in value.items()) + b"u"
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        state = b"" if value.state is None else rest(value.state) + b"b"
        return rest(value.function) + rest(value.args) + b"R" + state
    if isinstance(value, Stored):
        return rest(value.pid) + b"Q"
    return rest(_tensor(value, arrays, old))


def _tensor(value, arrays, old):
    if isinstance(value, np.ndarray):
        strides = tuple(step // value.itemsize for step in np.empty(value.shape, value.dtype).strides)
        value = Strided(value, 0, value.shape, strides)
    array = np.ascontiguousarray(value.array)
    same = [i for i, other in enumerate(arrays) if other is array]
    arrays += [] if same else [array]
    key = str(same[0] if same else len(arrays) - 1)
    kind = Name("torch", STORAGES[str(array.dtype)])
    pid = ("storage", kind, key, "cpu", array.size) + ((None,) if old else ())
    args = (Stored(pid), value.offset, value.shape, value.stride, False, Call(Name("collections", "OrderedDict"), ()))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), args)
