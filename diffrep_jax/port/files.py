"""State dicts in files: .pt (by PyTorch, imported only here, weights only) and .safetensors.

What a file is, its first bytes say, not its name. No file is ever given the chance to run code.
"""

import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError

_PREFIX = "module."  # of torch's DataParallel


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{name: array} of a plain state dict, without the prefix `module.`; bfloat16 becomes float32.

    Those of a .pt file map it where its format allows that: they cost no memory until they are used, and are not to be
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
        tensors = _read_safetensors(path)
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        tensors = _read_torch(path, mapped=start.startswith(b"PK"))
    else:
        raise UserError(f"{path} is neither a PyTorch file nor a .safetensors file.")
    if all(name.startswith(_PREFIX) for name in tensors):
        return {name.removeprefix(_PREFIX): value for name, value in tensors.items()}
    return tensors


def _read_torch(path: pathlib.Path, mapped: bool) -> dict[str, np.ndarray]:
    torch = _torch(f"Reading {path}")
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


def _torch(purpose: str) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(f"{purpose} needs PyTorch: pip install 'diffrep_jax[torch]'") from None
    return torch


def _reason(path: pathlib.Path, message: str) -> str:
    """Why torch.load refused a file, in one line."""
    needed = re.search(r"GLOBAL (\S+)", message)
    if needed or "TorchScript" in message:
        what = f"calls {needed[1]}" if needed else "is a TorchScript program"
        return f"{path} would have to run code to be read (it {what}) and was not loaded; save its plain state dict."
    return f"{path} is damaged, cut short or no PyTorch checkpoint; copy or download it again."


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}
    except Exception as error:  # the library's own, and TypeError for types that NumPy lacks
        raise UserError(f"{path} is damaged, cut short or of an unknown type ({error}); copy it again.") from None
    if not tensors:
        raise UserError(f"{path} holds no tensors.")
    wide = {name: value.astype(np.float32) for name, value in tensors.items() if value.dtype.name == "bfloat16"}
    return tensors | wide


def write_safetensors(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write all of it or nothing."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    _write_at_once(path, lambda temporary: save_file(contiguous, temporary))


def write_torch(path: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict for `torch.load`, all of it or nothing; raises UserError without PyTorch."""
    torch = _torch(f"Writing {path}")

    content = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    _write_at_once(path, lambda temporary: torch.save(content, temporary))


def _write_at_once(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    write(temporary)
    temporary.chmod(mode)  # safetensors makes files that nobody else may read
    os.replace(temporary, path)
