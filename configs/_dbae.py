"""What all DBAE experiments share: the published recipe of training and the networks by image size.

Images are decoded in ten evaluations; the official code's recipe is `sampler=heun grid=karras eta=0 steps=40`.

Variants, as in `configs/dbae_celeba.py:bridge=ve,encoder=stochastic`, are in VARIANTS; the first value is the default.
"""

from ml_collections import ConfigDict

from configs._shared import FROM_ENDPOINT, choose, shared_config

VARIANTS = {
    "bridge": ("vp", "ve", "vp_simple", "ve_simple"),
    "encoder": ("deterministic", "stochastic"),
}

# image size -> the U-Net's width and levels, the encoder's levels, the sizes that have attention in each
NETWORKS = {
    16: {"width": 16, "unet": (1, 2), "encoder": (1, 2, 4)},
    32: {"width": 32, "unet": (1, 2, 2), "encoder": (1, 1, 2, 4)},
    64: {"width": 64, "unet": (1, 2, 4, 8), "encoder": (1, 2, 4, 8, 8)},
    128: {"width": 128, "unet": (1, 1, 2, 3, 4), "encoder": (1, 1, 2, 3, 4, 4)},
    256: {"width": 128, "unet": (1, 1, 2, 2, 4, 4), "encoder": (1, 1, 2, 2, 4, 4, 4)},
}


def dbae_config(dataset: str, variant: str, total_steps: int, *image_sizes: int) -> ConfigDict:
    """The published recipe for one data set; image_sizes: see `choose`, the data set's where there are none."""
    chosen, image_size = choose(variant, VARIANTS, image_sizes or (0,))
    config = shared_config(dataset, total_steps, batch_size=256, sampling=FROM_ENDPOINT, image_size=image_size)
    networks = NETWORKS[config.data.image_size]
    config.method = {
        "name": "dbae",
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "latent_dim": 512,
        "bridge": chosen["bridge"],
        "stochastic_encoder": chosen["encoder"] == "stochastic",
        "sigma_data": 0.5,
        "sigma_data_end": 0.5,
        "cov_xy": 0.0,
        "dtype": "bfloat16",
        "remat": False,
        "unet": {
            "width": networks["width"],
            "mult": networks["unet"],
            "blocks": 2,
            "attention": (32, 16, 8),
            "head_dim": 64,
            "dropout": 0.1,
        },
        "encoder": {"width": networks["width"], "mult": networks["encoder"], "blocks": 2, "attention": (16,)},
        "generator": {"width": 64, "norm_images": 32},  # the micro-batch there, of a global batch of 256
    }
    config.optim = {"name": "radam", "lr": 1e-4, "ema_decay": 0.9999}
    config.tasks.reconstruct.every_steps = 10_000
    return config
