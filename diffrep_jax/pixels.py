"""Pixels as networks see them: uint8 0..255 become float32 in [-1, 1] inside what is compiled, not before."""

import jax.numpy as jnp
import numpy as np

from diffrep_jax.types import Array


def to_float(pixels: Array) -> Array:
    """uint8 0..255 -> float32 in [-1, 1]: pixels / 127.5 - 1 as NumPy rounds it. Other types stay as they are.

    A compiler may round that quotient in another way (XLA multiplies by 1 / 127.5), so it is computed in whole units of
    2^-24, which no backend rounds: pixels 2^25 / 255 = 131586 pixels + 2 pixels / 255. The last term, below 2, is
    rounded to 0 or 1 for quotients below 1 and to 0 or 2 above, where float32 has every second unit alone. The
    subtraction comes last: a product there could be fused with a later sum, which would then round differently.
    """
    if pixels.dtype != np.uint8:
        return pixels
    wide = pixels.astype(jnp.int32)
    units = 131586 * wide + (wide >= 64) + (wide >= 128)
    return units.astype(jnp.float32) * np.float32(2**-24) - np.float32(1)
