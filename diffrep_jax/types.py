"""Array aliases and the dimension key: b batch, h height, w width, c channels, d code, k attributes.

The second argument says type and shape, as a docstring would; nothing checks it at run time.
"""

from typing import Annotated, Any

from jax import Array

__all__ = ["Array", "Code", "Image", "Keys", "PyTree", "Scalar", "Time"]

Image = Annotated[Array, "float b h w c, in [-1, 1] unless a docstring says otherwise"]
Code = Annotated[Array, "float b d"]
Time = Annotated[Array, "float b"]
Scalar = Annotated[Array, "float"]
Keys = Annotated[Array, "random keys b, one an example"]
PyTree = Any
