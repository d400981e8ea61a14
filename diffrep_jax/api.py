"""`diffrep_jax.load(run)`: a trained run for notebooks and scripts."""

from diffrep_jax.inference.open import open_run as load

__all__ = ["load"]
