"""State dicts from files: .pt (by PyTorch, imported only here, weights only) and .safetensors (read here).

What a file is, its first bytes say, not its name. No file is ever given the chance to run code.
"""

import json
import math
import os
import pathlib
import re
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError

_PREFIX = "module."  # of torch's DataParallel
_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of a plain state dict, without the prefix `module.`; bfloat16 becomes float32.

    The arrays map the file where its format allows that: they cost no memory until they are used, and are not to be
    written to. Raises UserError where the file is missing, damaged, no state dict, or could only be read by code.
    """
    path = pathlib.Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"Cannot read checkpoint {path}: {error.strerror or error}.") from None
    if size == 0:
        raise UserError(f"Checkpoint {path} is empty; copy or download it again.")
    if start[8:9] == b"{":
        tensors = _read_safetensors(path, size)
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        tensors = _read_torch(path, mapped=start.startswith(b"PK"))
    else:
        raise UserError(f"{path} is neither a PyTorch file nor a .safetensors file.")
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def _read_torch(path: pathlib.Path, mapped: bool) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(f"Reading {path} needs PyTorch: pip install 'diffrep_jax[torch]'") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file fails in many ways: RuntimeError, KeyError, struct.error, ...
        raise UserError(_reason(path, str(error))) from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds {type(content).__name__}, not a state dict {{name: tensor}}.")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout != torch.strided:
            kind = type(value).__name__
            raise UserError(f"{path} is no plain state dict: {name!r} is a {kind}; save the dict of tensors alone.")

    def array(value: Any) -> np.ndarray:
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    return {name: array(value) for name, value in content.items()}


def _reason(path: pathlib.Path, message: str) -> str:
    """Why torch.load refused a file, in one line."""
    needed = re.search(r"GLOBAL (\S+)", message)
    if needed or "TorchScript" in message:
        what = f"calls {needed[1]}" if needed else "is a TorchScript program"
        return f"{path} would have to run code to be read (it {what}) and was not loaded; save its plain state dict."
    return f"{path} is damaged, cut short or no PyTorch checkpoint; copy or download it again."


def _read_safetensors(path: pathlib.Path, size: int) -> dict[str, np.ndarray]:
    """8 bytes of header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > size - 8:
                raise ValueError("the header exceeds the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        data = np.memmap(path, np.uint8, "r", offset=8 + length) if size > 8 + length else np.zeros(0, np.uint8)
        tensors = {name: _view(data, **entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); copy or download it again.") from None
    if not tensors:
        raise UserError(f"{path} holds no tensors.")
    return tensors


def _view(data: np.ndarray, dtype: str, shape: list[int], data_offsets: list[int]) -> np.ndarray:
    if dtype not in _SAFETENSORS:
        raise ValueError(f"dtype {dtype} is not supported")
    kind, (begin, end) = np.dtype(_SAFETENSORS[dtype]), data_offsets
    if not 0 <= begin <= end <= data.size or end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError(f"a tensor of shape {shape} is not within the data")
    values = data[begin:end].view(kind).reshape(shape)
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values
