"""Models that were not trained, of any weights but no silent layers, and images for them."""

import functools

import jax
import numpy as np

from configs import dbae_digits, pdae_digits
from diffrep_jax.inference.model import Model
from diffrep_jax.inference.open import recipe
from diffrep_jax.methods.base import build, example_batch
from diffrep_jax.sharding import make_mesh
from tests.networks import KEY, random_values


@functools.cache
def tiny_model(method, **fields):
    """(the model of 8 x 8 digits, three uint8 images)."""
    config = {"dbae": dbae_digits, "pdae": pdae_digits}[method].get_config()
    with config.unlocked():
        config.data.image_size = 8
        config.method.update(latent_dim=8, **fields)
        config.method.unet.update(width=8, mult=(1,), attention=())
        encoder = {"mult": (1, 2), "width": 8} if method == "dbae" else {"widths": (8, 8)}
        config.method.encoder.update(attention=(), **encoder)
    network = build(config.method)
    variables = random_values(network.init(KEY, example_batch(network)), std=0.05)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 8, 8, 1), np.uint8)
    return Model(network, variables, make_mesh(devices=jax.local_devices()[:1]), recipe(config)), pixels
