"""Arrays on their way into a model and out of it: their shapes, the numbers of images, values that are no numbers."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffrep_jax.errors import UserError, check_finite
from diffrep_jax.fields import LARGEST, shown, whole

Numbers = int | np.ndarray  # of images, for their noise: that of the first one, or one each
# What a model answers, by the question; `candidate_errors` is for its caller to judge.
ANSWERS = {
    "encode": "The code of image",
    "encode_sample": "The code of image",
    "endpoint": "The x_T of image",
    "decode": "Image",
    "decode_sample": "Image",
    "generate": "Sample",
    "invert": "The stochastic code of image",
    "denoise": "The denoised image",
}


def check_answer(question: str, answer: Any) -> None:
    """Raise NotFinite, naming the first image of the batch, where a model answers what no picture can be made of."""
    if question in ANSWERS:
        remedy = "damaged weights, or a recipe that diverges (try more sampling.steps, or method.dtype=float32)."
        check_finite(np.asarray(answer), ANSWERS[question], remedy)


def numbered(numbers: Numbers, n: int) -> np.ndarray:
    given = _array("numbers", numbers)
    if given.ndim == 0:
        first = whole(numbers, "numbers", 0, LARGEST - n)
        return np.arange(first, first + n)
    check_shape("numbers", given, (n,))
    if given.dtype.kind not in "iu" or given.min() < 0 or given.max() > LARGEST:
        raise UserError(f"numbers {shown(given.tolist())} are no whole numbers in [0, {LARGEST}].")
    return given


def shaped(name: str, array: Any, shape: Sequence[int | None]) -> np.ndarray:
    """Finite float32 of this shape."""
    given = _array(name, array)
    try:
        if given.dtype.kind == "c":
            raise TypeError
        with np.errstate(over="ignore"):  # what is too large is infinite, and refused
            numbers = given.astype(np.float32)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {_kind(array)}; give an array of real numbers.") from None
    check_finite(check_shape(name, numbers, shape), f"{name} of image", "give finite numbers.")
    return numbers


def pixels(name: str, array: Any, shape: Sequence[int | None], bounded: bool = True) -> np.ndarray:
    """Finite float32 of this shape, `bounded` in [-1, 1]; what is uint8 becomes that."""
    given = check_shape(name, _array(name, array), shape)
    if given.dtype == np.uint8:
        return given.astype(np.float32) / np.float32(127.5) - np.float32(1)
    taken = "give uint8, or floats" + " in [-1, 1]" * bounded
    if not jnp.issubdtype(given.dtype, jnp.floating):  # JAX's bfloat16 too
        raise UserError(f"{name} has dtype {given.dtype}; {taken}.")
    low, high = float(given.min()), float(given.max())
    if bounded and not (low >= -1.001 and high <= 1.001):
        raise UserError(f"{name} lies in [{low:g}, {high:g}]; {taken}.")
    return shaped(name, given, shape)


def check_shape(name: str, array: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.shape[0] == 0:
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        many = " with n >= 1" if None in shape else ""
        raise UserError(f"{name} has the shape {array.shape}; this model takes [{wanted}]{many}.")
    return array


def _array(name: str, array: Any) -> np.ndarray:
    if array is None or isinstance(array, str):
        raise UserError(f"{name} is {shown(array)}; give an array of numbers.")
    try:
        return np.asarray(array)
    except ValueError:
        raise UserError(f"{name} is {_kind(array)} of rows that differ in shape; give them one shape.") from None


def _kind(array: Any) -> str:
    return f"a {type(array).__name__}" + (f" of {array.dtype}" if hasattr(array, "dtype") else "")
