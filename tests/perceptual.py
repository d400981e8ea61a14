"""Generated weights and images of the perceptual metrics' networks; `golden/perceptual.npz` was measured with them."""

import functools

import numpy as np

from diffrep_jax.metrics import inception, lpips
from tests import golden

GAIN = 1.6  # on Inception's kernels: else its many ReLUs make all images alike


@functools.cache
def inception_state():
    tensors = golden.state_dict(inception.shapes(), "inception.")
    return {name: GAIN * value if name.endswith("conv.weight") else value for name, value in tensors.items()}


@functools.cache
def lpips_states():
    """(AlexNet's, the heads', which are not negative)."""
    alexnet, heads = (golden.state_dict(shapes, "lpips.") for shapes in lpips.shapes())
    return alexnet, {name: np.abs(value) for name, value in heads.items()}


def images(name, *shape):
    """Of all contrasts, in [-1, 1]."""
    contrast = np.linspace(0.2, 1, shape[0], dtype=np.float32)[:, None, None, None]
    return np.clip(contrast * golden.normal(name, *shape), -1, 1)
