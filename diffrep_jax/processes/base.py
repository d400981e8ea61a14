"""What all processes share: x_t = a(t) x_T + b(t) x_0 + c(t) eps, and nothing else (the protocol is types.Process).

A process says its coefficients (a, b, c), their slopes and its diffusion rate g2. Loss weights, preconditioning, drifts
and samplers are written once in terms of these. A Gaussian diffusion is the case a = 0.

Every function of t takes NumPy's arrays and JAX's, and answers in kind: inside a network's computation times are
float32 on a device, while the nodes of a sampler are known beforehand and computed on the host in float64.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array, Image, Process, Time


def namespace(t: Any) -> ModuleType:
    """jax.numpy for JAX's arrays, traced ones too, else numpy."""
    return jnp if isinstance(t, jax.Array) else np


def per_image(values: Time, images: Image) -> Array:
    """Reshape [b] to [b, 1, 1, 1], so that one number an example broadcasts over its image."""
    return jnp.reshape(values, values.shape + (1,) * (images.ndim - values.ndim))


def diffuse(process: Process, x0: Image, xT: Image, eps: Image, t: Time) -> Image:
    """x_t = a x_T + b x_0 + c eps at one time an example."""
    a, b, c = (per_image(k, x0) for k in process.coefficients(t))
    return a * xT + b * x0 + c * eps
