"""The measured numbers of `tests/golden/` and the state dicts that they were measured with.

A weight is a function of its name and shape: normal values of a generator seeded by the name's CRC-32. So the files
hold names, shapes and results, no weights.
"""

import json
import math
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "golden"


def numbers(case: str) -> dict[str, np.ndarray]:
    """The results of a case; image outputs are every 4th pixel unless the name ends in `_full`."""
    with np.load(FOLDER / f"{case}.npz") as file:
        return dict(file)


def manifest(case: str) -> dict[str, tuple[int, ...]]:
    """{official name: shape}."""
    return {name: tuple(shape) for name, shape in json.loads((FOLDER / f"{case}.manifest.json").read_text()).items()}


def gradient_norms(case: str) -> dict[str, float | None]:
    """{official name of a parameter: L2 norm of its gradient}; None where it is unused."""
    return json.loads((FOLDER / f"{case}.gradnorm.json").read_text())


def normal(name: str, *shape: int) -> np.ndarray:
    """The inputs' and the weights' common source."""
    return _stream(name).randn(*shape).astype(np.float32)


def state_dict(shapes: dict[str, tuple[int, ...]], prefix: str = "") -> dict[str, np.ndarray]:
    """The official tensors; `prefix` is part of the name only where it seeds."""
    tensors = {name: _values(prefix + name, shape) for name, shape in shapes.items()}
    for name in shapes:
        if name.endswith(".weight_u"):
            weight = name.removesuffix("_u")
            u, v = _singular_vectors(_matrix(tensors[f"{weight}_orig"], "init.init.0" in name), f"{weight}_orig_u")
            tensors[name], tensors[f"{weight}_v"] = u, v
    return tensors


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def _values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf in ("weight_u", "weight_v"):
        return np.empty(shape, np.float32)  # follow from the weight
    if leaf == "running_var":
        return (1 + 0.1 * _stream(name).rand(*shape)).astype(np.float32)
    values = _stream(name).randn(*shape)
    if leaf == "running_mean" or (leaf == "bias" and len(shape) == 1):
        values = 0.1 * values
    elif len(shape) == 1:
        values = 1 + 0.1 * values
    else:
        values = values / math.sqrt(math.prod(shape[1:]))
    return values.astype(np.float32)


def _matrix(weight: np.ndarray, transposed_conv: bool) -> np.ndarray:
    """The weight as PyTorch's spectral norm sees it, [out, rest]."""
    out_first = weight.swapaxes(0, 1) if transposed_conv else weight
    return out_first.reshape(out_first.shape[0], -1).astype(np.float64)


def _singular_vectors(matrix: np.ndarray, seed: str) -> tuple[np.ndarray, np.ndarray]:
    """u and v after ten power iterations."""
    u = _stream(seed).randn(matrix.shape[0])
    u = u / np.linalg.norm(u)
    v = u
    for _ in range(10):
        v = u @ matrix
        v = v / np.linalg.norm(v)
        u = matrix @ v
        u = u / np.linalg.norm(u)
    return u.astype(np.float32), v.astype(np.float32)
