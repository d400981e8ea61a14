"""Small networks and the arrays that tests of networks share."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffrep_jax.methods.dbae import DBAE

KEY = jax.random.key(0)


def normal(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def random_values(tree, seed=0, std=0.1):
    """The tree with normal noise added, so that no layer is silent because it starts at zero."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    noise = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, [leaf + std * n for leaf, n in zip(leaves, noise, strict=True)])


def shapes_of(module, *args, **kwargs):
    return jax.eval_shape(lambda: nn.meta.unbox(module.init(KEY, *args, **kwargs)))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def small_dbae(image_size=16, channels=1, **changes):
    fields = {
        "latent_dim": 12,
        "bridge": "vp",
        "stochastic_encoder": False,
        "sigma_data": 0.5,
        "sigma_data_end": 0.5,
        "cov_xy": 0.0,
        "dtype": "float32",
        "remat": False,
        "unet": {"width": 8, "mult": (1, 2), "blocks": 1, "attention": (8,), "head_dim": 4, "dropout": 0.1},
        "encoder": {"width": 8, "mult": (1, 2), "blocks": 1, "attention": (8,)},
        "generator": {"width": 2},
    }
    return DBAE(image_size=image_size, channels=channels, **(fields | changes))


def layer_paths(tree):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}
