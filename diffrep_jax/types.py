"""Array aliases and the dimension key: b batch, h height, w width, c channels, d code, k attributes; what a config is;
and what a process is, which processes/ write and samplers/ read.

The second argument of an alias says type and shape, as a docstring would; nothing checks it at run time.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Protocol

from jax import Array

__all__ = ["Array", "Code", "Config", "Image", "Keys", "Process", "PyTree", "Scalar", "Time"]

Image = Annotated[Array, "float b h w c, in [-1, 1] unless a docstring says otherwise"]
Code = Annotated[Array, "float b d"]
Time = Annotated[Array, "float b"]
Scalar = Annotated[Array, "float"]
Keys = Annotated[Array, "random keys b, one an example"]
PyTree = Any


class Config(Protocol):
    """A config or a section of one, an `ml_collections.ConfigDict`, whose fields are attributes of any type."""

    def __getattr__(self, name: str, /) -> Any: ...

    def __setattr__(self, name: str, value: Any, /) -> None: ...

    def __getitem__(self, key: str, /) -> Any: ...

    def __contains__(self, key: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


class Process(Protocol):
    """A pure description of a noising process on t in [t_min, t_max]; every function is elementwise in t."""

    @property
    def t_data(self) -> float:
        """Where x_t is x_0: sampling ends there, at or below t_min."""
        ...

    @property
    def t_min(self) -> float: ...

    @property
    def t_max(self) -> float: ...

    @property
    def t_noise(self) -> float:
        """Where nothing of x_0 is left in x_t; encoding may end there."""
        ...

    @property
    def steps(self) -> int | None:
        """How many time-steps a discrete process has; None for a continuous one."""
        ...

    def coefficients(self, t: Any) -> tuple[Any, Any, Any]:
        """(a, b, c) at t, each with the shape of t."""
        ...

    def a_complement(self, t: Any) -> Any:
        """1 - a, accurate also where a is near 1: at T the difference of floats has no digits left."""
        ...

    def slopes(self, t: Any) -> tuple[Any, Any, Any]:
        """(da/dt, db/dt, dc/dt); infinite where the process has no drift, at both ends of a bridge."""
        ...

    def g2(self, t: Any) -> Any:
        """The squared diffusion rate g(t)^2 of the forward SDE."""
        ...

    def rho(self, t: Any) -> Any:
        """Noise to signal of the diffusion without its end x_T: c / b where a = 0, more than that on a bridge."""
        ...
