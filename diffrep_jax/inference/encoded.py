"""Images as codes: z, and the stochastic code where it was looked for."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Encoded:
    """z [n, d], and the stochastic codes [n, h, w, c] (`Model.invert`); None: decoding starts from x_T alone."""

    z: np.ndarray
    stochastic_code: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice) -> "Encoded":
        return Encoded(self.z[rows], None if self.stochastic_code is None else self.stochastic_code[rows])

    def with_z(self, z: np.ndarray) -> "Encoded":
        return Encoded(z, self.stochastic_code)


def joined(parts: Sequence[Encoded]) -> Encoded:
    """All rows, one part after the other; without stochastic codes where one part has none."""
    codes = [part.stochastic_code for part in parts if part.stochastic_code is not None]
    return Encoded(
        np.concatenate([part.z for part in parts]), np.concatenate(codes) if len(codes) == len(parts) else None
    )
