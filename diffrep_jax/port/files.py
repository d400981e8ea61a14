"""State dicts in files: those of PyTorch (.pt, .ckpt, .pkl) and .safetensors.

What a file is, its first bytes say, not its name. No file is ever given the chance to run code. Only writing a .pt file
needs PyTorch.
"""

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from diffrep_jax import whole
from diffrep_jax.errors import UserError
from diffrep_jax.port import torch_file

log = logging.getLogger(__name__)

Tensors = Mapping[str, np.ndarray]
_NOT_RUN = "which was not run"
_STEPS = ("step", "global_step")  # where trainers keep the number of updates; the second is Lightning's
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
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

    What else is in a .pt file (optimizers, settings) is passed over; a warning says what of it only code could make.
    Arrays map the file: they cost no memory until they are used, and are not to be written to. Raises UserError where
    the file is missing, damaged, or without a state dict that holds tensors alone.
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
        contents = _read_torch(path)
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


def _read_torch(path: pathlib.Path) -> Contents:
    try:
        file = torch_file.read(path)
    except Exception as error:  # a damaged or a crafted file fails in many ways
        raise UserError(
            f"{path} is damaged, cut short or no PyTorch checkpoint ({error}); copy or download it again."
        ) from None
    content = file.content
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds {_described(content)}, not a state dict {{name: tensor}}.")
    held = {"": content} if _is_state_dict(content) else {n: x for n, x in content.items() if _is_state_dict(x)}
    if not held:
        odd = {n: _described(x) for n, x in content.items() if not isinstance(x, torch_file.Tensor)}
        name = next((n for n, described in odd.items() if _NOT_RUN in described), next(iter(odd)))
        raise UserError(
            f"{path} is no plain state dict, nor does it hold one: {name!r} is {odd[name]}; "
            "save the dict of tensors alone."
        )
    if file.names:
        log.warning("%s also has what only code could make, and nothing was run: %s.", path, ", ".join(file.names))
    parts = {str(part): {name: file.array(x) for name, x in tensors.items()} for part, tensors in held.items()}
    step = next((content[name] for name in _STEPS if name in content), None)
    return Contents({part: _wide(tensors) for part, tensors in parts.items()}, step if _is_step(step) else None)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(n, str) and isinstance(x, torch_file.Tensor) for n, x in value.items())
    )


def _described(value: Any) -> str:
    """What a value in a file is, for an error."""
    if isinstance(value, torch_file.Placeholder):
        return f"something that {value.path} makes, {_NOT_RUN}"
    if isinstance(value, dict):
        odd = next((x for x in value.values() if isinstance(x, torch_file.Placeholder)), None)
        return "a dict" if odd is None else f"a dict with {_described(odd)}"
    return f"a {type(value).__name__}"


def _is_step(value: Any) -> bool:
    return type(value) is int and value >= 0


def _torch(purpose: str) -> Any:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(f"{purpose} needs PyTorch: pip install 'diffrep_jax[torch]'") from None
    return torch


def _read_safetensors(path: pathlib.Path) -> Tensors:
    import safetensors

    try:
        with safetensors.safe_open(path, "numpy") as file:  # checks names, shapes and sizes
            names = list(file.keys())
        mapped = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(mapped[:8].tobytes(), "little")
        entries = json.loads(mapped[8 : 8 + length].tobytes())
        tensors = {name: _tensor(mapped[8 + length :], entries[name]) for name in names}
    except Exception as error:  # the library's own, and KeyError for types that NumPy lacks
        raise UserError(f"{path} is damaged, cut short or of an unknown type ({error}); copy it again.") from None
    if not tensors:
        raise UserError(f"{path} holds no tensors.")
    return _wide(tensors)


def _tensor(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    return np.asarray(data[first:last]).view(_TYPES[entry["dtype"]]).reshape(entry["shape"])


def _wide(tensors: Tensors) -> dict[str, np.ndarray]:
    """The same, those in bfloat16 as float32."""
    return {name: x.astype(np.float32) if x.dtype == ml_dtypes.bfloat16 else x for name, x in tensors.items()}


def write_safetensors(path: pathlib.Path, tensors: Tensors) -> None:
    """Write all of it or nothing."""
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with whole.replacing(path) as temporary:
        save_file(contiguous, temporary)


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

    with whole.replacing(path) as temporary:
        torch.save(converted(content), temporary)
