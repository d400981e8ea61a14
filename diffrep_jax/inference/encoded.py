"""Images as codes: z, and the stochastic code where it was looked for."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from diffrep_jax.methods.base import Mixture


@dataclasses.dataclass(frozen=True)
class Encoded:
    """z [n, d], and the stochastic codes [n, h, w, c] (`Model.invert`); None: decoding starts from x_T alone.

    mixture: decoded from in the place of z, where the effects of two codes are mixed and not the codes themselves.
    """

    z: np.ndarray
    stochastic_code: np.ndarray | None = None
    mixture: Mixture | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice) -> "Encoded":
        code = None if self.stochastic_code is None else self.stochastic_code[rows]
        mixture = None if self.mixture is None else Mixture(*(values[rows] for values in self.mixture))
        return Encoded(self.z[rows], code, mixture)

    def with_z(self, z: np.ndarray) -> "Encoded":
        return Encoded(z, self.stochastic_code)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """All rows, one part after the other; without stochastic codes, or mixtures, where one part has none."""
    codes = [part.stochastic_code for part in parts if part.stochastic_code is not None]
    mixtures = [part.mixture for part in parts if part.mixture is not None]
    return Encoded(
        np.concatenate([part.z for part in parts]),
        np.concatenate(codes) if len(codes) == len(parts) else None,
        Mixture(*map(np.concatenate, zip(*mixtures, strict=True))) if len(mixtures) == len(parts) else None,
    )
