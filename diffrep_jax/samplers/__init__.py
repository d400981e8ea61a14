"""Samplers: one algorithm a file, one loop, one recipe that names them (`recipe.Sampling`)."""

from diffrep_jax.samplers.driver import Stepper, normal_noise, sample
from diffrep_jax.samplers.recipe import Sampling, samplers

__all__ = ["Sampling", "Stepper", "normal_noise", "sample", "samplers"]
