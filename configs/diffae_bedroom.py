"""DiffAE on LSUN Bedroom 128 x 128 (3,033,042 images).

Paper:    template bedroom128_autoenc: 120 million images.
Command:  python launch/main.py --config=configs/diffae_bedroom.py --workdir=runs/diffae --data_dir=DIR
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config


def get_config(variant: str = "") -> ConfigDict:
    return diffae_config("bedroom", variant, images=120_000_000)
