"""DiffAE's choice of some of the discrete steps of a process ("ddimN" of its code, after ADM's `space_timesteps`)."""

import numpy as np

from diffrep_jax.errors import UserError


def strided_steps(total: int, count: int) -> np.ndarray:
    """`count` of `total` steps, increasing: 0, s, 2 s, .. with the smallest integer s that makes so many.

    The last one mostly lies below total - 1. Raises UserError, with the nearest counts, where no s does.
    """
    sizes = -(-total // np.arange(1, total))  # by stride 1, 2, ..
    fitting = np.flatnonzero(sizes == count)
    if not len(fitting):
        nearest = sorted(set(sizes.tolist()), key=lambda size: (abs(size - count), size))[:2]
        raise UserError(
            f"steps {count} is no number of equally spaced steps of {total}; the nearest are "
            f"{' and '.join(map(str, sorted(nearest)))}."
        )
    return np.arange(0, total, fitting[0] + 1)
