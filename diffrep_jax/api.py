"""`diffrep_jax.load(run)`: a trained run for notebooks and scripts; `load_heads(run, model)`: its linear heads."""

from diffrep_jax.inference.heads import load_heads
from diffrep_jax.inference.open import open_run as load

__all__ = ["load", "load_heads"]
