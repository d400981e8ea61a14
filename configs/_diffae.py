"""What all DiffAE experiments share: the recipe of its templates, and the networks, DBAE's, by image size.

There: Adam 1e-4, gradients clipped at norm 1 over all parameters, average 0.9999, batch 128 (64 at 256 px), dropout
0.1. Images are decoded in 20 steps; its notebooks encode x_T in 250 and decode what they change in 100. No variants.
"""

from ml_collections import ConfigDict

from configs._dbae import NETWORKS
from configs._gaussian import gaussian_config
from diffrep_jax.config import parse_variant

VARIANTS: dict[str, tuple[str, ...]] = {}


def diffae_config(
    variant: str, dataset: str, image_size: int, millions: int, batch_size: int = 128, split: str = "all"
) -> ConfigDict:
    """The published recipe for one data set; `millions` of images are seen in training."""
    parse_variant(variant, VARIANTS)
    networks = NETWORKS[image_size]
    shared = {"width": networks["width"], "blocks": 2, "attention": (16,)}
    config = gaussian_config("ddpm", "", dataset, image_size, millions * 1_000_000 // batch_size, split)
    config.method.update(name="diffae", latent_dim=512)
    config.method.unet = shared | {
        "mult": networks["unet"],
        "head_dim": -1,
        "heads": 1,
        "emb_width": 512,
        "dropout": 0.1,
    }
    config.method.encoder = shared | {"mult": networks["encoder"]}
    config.optim.clip_norm = 1.0
    config.train.batch_size = batch_size
    for task in ("reconstruct", "interpolate", "evaluate", "sample", "counterfactual", "manipulate"):
        config.tasks[task].steps = 100 if task == "manipulate" else 20
    for task in ("interpolate", "counterfactual", "manipulate"):
        config.tasks[task].invert_steps = 250
    config.tasks.sample.every_steps = 0
    return config
