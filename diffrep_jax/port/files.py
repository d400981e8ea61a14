"""State dicts in files: .pt (by PyTorch, imported only here, weights only) and .safetensors.

What a file is, its first bytes say, not its name. No file is ever given the chance to run code.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError

Tensors = Mapping[str, np.ndarray]
_WRAPPERS = ("module", "_orig_mod")  # parts of a name that DataParallel and torch.compile put in


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes:
      parts: {name of a state dict: {name: array}}; a file that is one plain state dict is the part "".
      step: the number of updates, None where the file does not say.
    """

    parts: Mapping[str, Tensors]
    step: int | None = None


def read(path: str | os.PathLike[str]) -> Tensors:
    """{name: array} of a file that is a plain state dict; `read_parts` with a UserError for any other."""
    parts = read_parts(path).parts
    if "" not in parts:
        raise UserError(f"{path} is no plain state dict: it holds {', '.join(parts)}; save one of them alone.")
    return parts[""]


def read_parts(path: str | os.PathLike[str]) -> Contents:
    """The state dicts of a file, without `module.` and `_orig_mod.` in their names; bfloat16 becomes float32.

    What else is in a .pt file (optimizers, settings) is passed over. Its arrays map the file where its format allows
    that: they cost no memory until they are used, and are not to be written to. Raises UserError where the file is
    missing, damaged, without a state dict, or could only be read by code.
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
        contents = Contents({"": _read_safetensors(path)})
    elif start.startswith((b"PK\x03\x04", b"\x80")):
        contents = _read_torch(path, mapped=start.startswith(b"PK"))
    else:
        raise UserError(f"{path} is neither a PyTorch file nor a .safetensors file.")
    return Contents({part: _unwrapped(tensors, path) for part, tensors in contents.parts.items()}, contents.step)


def _unwrapped(tensors: Tensors, path: pathlib.Path) -> Tensors:
    """The tensors by names without the parts of _WRAPPERS, wherever these are."""
    names = {}
    for name in tensors:
        *modules, leaf = name.split(".")
        short = ".".join([part for part in modules if part not in _WRAPPERS] + [leaf])
        if short in names:
            raise UserError(f"{path} has both {names[short]} and {name}, which name the same weight; save one of them.")
        names[short] = name
    return {short: tensors[name] for short, name in names.items()}


def _read_torch(path: pathlib.Path, mapped: bool) -> Contents:
    torch = _torch(f"Reading {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file fails in many ways: RuntimeError, KeyError, struct.error, ...
        raise UserError(_reason(path, str(error))) from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds {type(content).__name__}, not a state dict {{name: tensor}}.")

    def is_tensor(name: Any, value: Any) -> bool:
        return isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided

    def is_state_dict(value: Any) -> bool:
        return isinstance(value, dict) and bool(value) and all(is_tensor(*item) for item in value.items())

    def array(value: Any) -> np.ndarray:
        value = value.detach()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    found = {"": content} if is_state_dict(content) else {n: x for n, x in content.items() if is_state_dict(x)}
    if not found:
        name, value = next(item for item in content.items() if not is_tensor(*item))
        raise UserError(
            f"{path} is no plain state dict, nor does it hold one: {name!r} is a {type(value).__name__}; "
            "save the dict of tensors alone."
        )
    parts = {str(part): {name: array(x) for name, x in tensors.items()} for part, tensors in found.items()}
    step = content.get("step")
    return Contents(parts, step if type(step) is int and step >= 0 else None)


def _torch(purpose: str) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
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


def _read_safetensors(path: pathlib.Path) -> Tensors:
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


def write_safetensors(path: pathlib.Path, tensors: Tensors) -> None:
    """Write all of it or nothing."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    _write_at_once(path, lambda temporary: save_file(contiguous, temporary))


def write_torch(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write a dict of arrays, of state dicts and of numbers for `torch.load`, all of it or nothing.

    An array that is there twice takes its space once. Raises UserError without PyTorch.
    """
    torch = _torch(f"Writing {path}")
    tensors: dict[int, Any] = {}

    def converted(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: converted(item) for name, item in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        if id(value) not in tensors:
            tensors[id(value)] = torch.from_numpy(np.array(value))
        return tensors[id(value)]

    _write_at_once(path, lambda temporary: torch.save(converted(content), temporary))


def _write_at_once(path: pathlib.Path, write: Callable[[pathlib.Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    write(temporary)
    temporary.chmod(mode)  # safetensors makes files that nobody else may read
    os.replace(temporary, path)
