"""DiffAE on LSUN Horse 128 x 128 (2,000,340 images).

Paper:    template horse128_autoenc: 130 million images; the released file says 82 million.
Command:  python launch/main.py --config=configs/diffae_horse.py --workdir=runs/diffae --data_dir=DIR
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config


def get_config(variant: str = "") -> ConfigDict:
    return diffae_config("horse", variant, images=130_000_000)
