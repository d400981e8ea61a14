"""Array aliases and the dimension key: b batch, h height, w width, c channels, d code, k attributes."""

from typing import Any

from jaxtyping import Array, Float, PRNGKeyArray, UInt8

Image = Float[Array, "b h w c"]  # in [-1, 1] unless a docstring says otherwise
Pixels = UInt8[Array, "b h w c"]  # in 0..255
Code = Float[Array, "b d"]
Time = Float[Array, "b"]
Scalar = Float[Array, ""]
Keys = PRNGKeyArray  # [b], one key per example
PyTree = Any
