"""What all DiffAE experiments share: the recipe of its templates, and the networks, DBAE's, by image size.

There: Adam 1e-4, gradients clipped at norm 1 over all parameters, average 0.9999, batch 128 (64 at 256 px), dropout
0.1. Images are encoded and decoded in 20 evaluations each way; published are `grid=ddim_space order=1` with `steps=20`,
100 for what its notebooks change, and `invert_steps=250`. No variants.
"""

from ml_collections import ConfigDict

from configs._dbae import NETWORKS
from configs._shared import FROM_NOISE, infer_endpoint, shared_config
from diffrep_jax.config import parse_variant

VARIANTS: dict[str, tuple[str, ...]] = {}
BATCH = 128


def diffae_config(dataset: str, variant: str, images: int, batch_size: int = BATCH, image_size: int = 0) -> ConfigDict:
    """The published recipe for one data set; `images`: how many training sees; image_size 0: the data set's."""
    parse_variant(variant, VARIANTS)
    config = shared_config(dataset, images // batch_size, batch_size, FROM_NOISE, image_size)
    networks = NETWORKS[config.data.image_size]
    levels = {"width": networks["width"], "blocks": 2, "attention": (16,)}
    unet = {"mult": networks["unet"], "head_dim": -1, "heads": 1, "emb_width": 512, "dropout": 0.1}
    config.method = {
        "name": "diffae",
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "latent_dim": 512,
        "dtype": "bfloat16",
        "remat": False,
        "unet": levels | unet,
        "encoder": levels | {"mult": networks["encoder"]},
    }
    infer_endpoint(config)
    config.tasks.reconstruct.every_steps = 10_000
    config.optim = {"name": "adam", "lr": 1e-4, "ema_decay": 0.9999, "clip_norm": 1.0}
    return config
