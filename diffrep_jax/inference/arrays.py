"""Arrays on their way into a model and out of it: their shapes, the numbers of images, values that are no numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError, check_finite

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
    if isinstance(numbers, int):
        return np.arange(numbers, numbers + n)
    return np.asarray(check_shape("numbers", np.asarray(numbers), (n,)))


def shaped(name: str, array: Any, shape: Sequence[int | None]) -> np.ndarray:
    return check_shape(name, np.asarray(array, np.float32), shape)


def check_shape(name: str, array: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    fits = array.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))
    if not fits or array.shape[0] == 0:
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise UserError(f"{name} has the shape {array.shape}; this model takes [{wanted}] with n >= 1.")
    return array
