"""What decoding starts from, as pictures: x_T, and what was inferred of an image besides its z."""

import numpy as np

from diffrep_jax.inference.arrays import Numbers
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.model import Model


def starts(model: Model, encoded: Encoded, numbers: Numbers = 0) -> dict[str, np.ndarray]:
    """{name: [n, h, w, c]}, x_T first, which is the inferred one where noise alone is left at the end of the process.

    Of a bridge the noise that was inferred comes next, and of a reversible sampler the defect of its first step: both
    are small there, and enlarged to a deviation of 1.
    """
    process, code = model.method.process, encoded.stochastic_code
    ends_in_noise = not np.any(process.coefficients(np.asarray(process.t_max))[0])
    if code is None:
        return {"x_T": model.endpoint(encoded.z, numbers)}
    noise, defect = code[..., : model.channels], code[..., model.channels :]
    if ends_in_noise:
        shown = {"x_T, inferred": noise}
    else:
        shown = {"x_T": model.endpoint(encoded.z, numbers), "noise, enlarged": _enlarged(noise)}
    return shown | ({"defect, enlarged": _enlarged(defect)} if defect.shape[-1] else {})


def _enlarged(parts: np.ndarray) -> np.ndarray:
    """Each image at a deviation of 1; one without any as it is."""
    deviations = parts.std((1, 2, 3), keepdims=True)
    return parts / np.where(deviations > 0, deviations, 1)
