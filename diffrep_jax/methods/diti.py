"""DiTi: Exploring Diffusion Time-steps for Unsupervised Representation Learning (Yue et al., ICLR 2024, 2401.11430).

Attributes get lost along the time-steps, fine ones first. So the code is built up along the steps: these are cut into
k blocks, block i owns the dimensions [e_{i-1}, e_i) of z, and its steps see the dimensions below e_i. All else is PDAE,
its loss included, with z in it as

    base:       z [0, e_i)
    stop_grad:  sg(z) [0, e_{i-1}) + z [e_{i-1}, e_i)      the earlier dimensions get no gradient from later steps
    dual:       the sum of both losses

Dimensions are shared out evenly, or by stages: a stage has so many dimensions, and its blocks equal shares of them.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import NOT_EMPTY, Count, Natural
from diffrep_jax.methods.pdae import PDAE
from diffrep_jax.types import Array, Code, Time

MODES = ("base", "stop_grad", "dual")


@dataclasses.dataclass(frozen=True)
class DiTi(PDAE):
    """The fields are those of PDAE, and:

    Attributes:
      mode: "base", "stop_grad" or "dual".
      k: the number of blocks.
      stages: the first time-step behind each stage, the last one 1000.
      k_per_stage: how many blocks each stage has, of equal length; (): all k blocks have the same length.
      dims_per_stage: how many dimensions of z the blocks of a stage share. A block belongs to the stage of its first
        time-step; the remainder of a division goes to the stage's last block.
    """

    mode: str
    k: Count
    stages: Annotated[tuple[Count, ...], NOT_EMPTY]
    k_per_stage: tuple[Count, ...]
    dims_per_stage: tuple[Natural, ...]

    def __post_init__(self):
        super().__post_init__()
        for name in ("stages", "k_per_stage", "dims_per_stage"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        place, steps = "config.method", self.process.steps
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES, f"{place}.mode")
        if not 1 <= self.k <= steps:
            raise UserError(f"{place}.k={self.k} must be in [1, {steps}], the number of time-steps.")
        if list(self.stages) != sorted(set(self.stages)) or not self.stages or self.stages[-1] != steps:
            raise UserError(f"{place}.stages={self.stages} must increase and end at {steps}.")
        if len(self.dims_per_stage) != len(self.stages) or sum(self.dims_per_stage) != self.latent_dim:
            raise UserError(
                f"{place}.dims_per_stage={self.dims_per_stage} must be one number for each of the {len(self.stages)} "
                f"stages, {self.latent_dim} (latent_dim) in all."
            )
        if self.k_per_stage and (len(self.k_per_stage) != len(self.stages) or sum(self.k_per_stage) != self.k):
            raise UserError(
                f"{place}.k_per_stage={self.k_per_stage} must be one number for each of the {len(self.stages)} stages, "
                f"{self.k} (k) in all, or ()."
            )
        if len(np.unique(self.block_of_step)) < self.k or 0 in np.bincount(
            self._stage_of_block, minlength=len(self.stages)
        ):
            raise UserError(f"{place}.stages={self.stages} leave a block or a stage without time-steps; choose fewer.")

    # The plan, on the host

    @property
    def block_of_step(self) -> np.ndarray:
        """The block of each time-step, [steps]."""
        t = np.arange(self.process.steps)
        if not self.k_per_stage:
            return t * self.k // self.process.steps
        stage = np.searchsorted(self.stages, t, side="right")
        starts, counts = np.array([0, *self.stages[:-1]]), np.array(self.k_per_stage)
        within = (t - starts[stage]) * counts[stage] // (np.array(self.stages) - starts)[stage]
        return np.cumsum([0, *counts[:-1]])[stage] + within

    @property
    def _stage_of_block(self) -> np.ndarray:
        """[k]"""
        first_steps = np.searchsorted(self.block_of_step, np.arange(self.k))
        return np.searchsorted(self.stages, first_steps, side="right")

    @property
    def block_ends(self) -> np.ndarray:
        """e_i, the dimension behind each block's last one, [k]."""
        sizes = []
        for dims, blocks in zip(self.dims_per_stage, np.bincount(self._stage_of_block), strict=True):
            sizes += [dims // blocks] * (blocks - 1) + [dims - dims // blocks * (blocks - 1)]
        return np.cumsum(sizes)

    def block_of(self, t: np.ndarray) -> np.ndarray:
        return self.block_of_step[np.clip(np.floor(t), 0, self.process.t_max).astype(int)]

    # The masks

    def prefix_mask(self, t: Time) -> Array:
        """1 on the dimensions that the blocks up to that of t own, [b, d]."""
        return self._below(self.block_ends, t)

    def block_mask(self, t: Time) -> Array:
        """1 on the dimensions of the block of t, [b, d]."""
        return self.prefix_mask(t) - self._below(np.append(0, self.block_ends[:-1]), t)

    def _below(self, ends: np.ndarray, t: Time) -> Array:
        step = jnp.clip(jnp.floor(t), 0, self.process.t_max).astype(jnp.int32)
        end = jnp.asarray(ends[self.block_of_step])[step]
        return (jnp.arange(self.latent_dim) < end[:, None]).astype(jnp.float32)

    def code_at(self, z: Code, t: Time) -> Code:
        return z * self.prefix_mask(t)

    def training_codes(self, z: Code, t: Time) -> list[Code]:
        base, block = self.prefix_mask(t), self.block_mask(t)
        codes = {"base": z * base, "stop_grad": jax.lax.stop_gradient(z) * (base - block) + z * block}
        return list(codes.values()) if self.mode == "dual" else [codes[self.mode]]


Method = DiTi
