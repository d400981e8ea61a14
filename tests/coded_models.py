"""Small auto-encoders with values drawn at random, as opened runs: for tests of what is done with codes."""

import jax
import numpy as np

from configs import ddpm_digits, diffae_digits, diti_digits, pdae_digits
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import recipe
from diffrep_jax.methods.base import build, example_batch
from diffrep_jax.sharding import make_mesh
from tests.networks import random_values

MODULES = {"pdae": pdae_digits, "diti": diti_digits, "ddpm": ddpm_digits, "diffae": diffae_digits}


def small_config(name, image_size=8):
    """The digits config of a method, its networks so small that they compile in seconds; 8 blocks and 16 dimensions."""
    config = MODULES[name].get_config().unlock()
    config.data.update(image_size=image_size)
    config.method.unet.update(width=8, mult=(1,), attention=())
    if name in ("pdae", "diti"):
        config.method.encoder.update(widths=(8,), attention=())
    elif name == "diffae":
        config.method.encoder.update(width=8, mult=(1, 2), attention=())
        config.method.latent_dim = 16
    config.sampling.update(steps=3, grid="ddim_range", eta=0.0)
    for task in ("reconstruct", "interpolate", "counterfactual", "manipulate"):
        config.tasks[task].invert_steps = 0
    return config.lock()


def opened(config, seed=0, std=0.1):
    """The model of a config with random weights."""
    method = build(config.method)
    variables = method.init(jax.random.key(seed), {k: np.zeros(s.shape) for k, s in example_batch(method).items()})
    variables = variables | {"params": random_values(variables["params"], seed, std)}
    return Model(method, variables, make_mesh(devices=jax.local_devices()), recipe(config))
