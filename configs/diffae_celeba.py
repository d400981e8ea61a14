"""DiffAE on CelebA 64 x 64 (crop 128 x 128, resized; all 202,599 images).

Paper:    template celeba64d2c_autoenc: 72 million images; none of its checkpoints was released.
Command:  python launch/main.py --config=configs/diffae_celeba.py --workdir=runs/diffae --data_dir=DIR
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config


def get_config(variant: str = "") -> ConfigDict:
    config = diffae_config("celeba", variant, images=72_000_000)
    config.data.split = config.tasks.inspect_data.split = config.tasks.encode.split = "all"
    return config
