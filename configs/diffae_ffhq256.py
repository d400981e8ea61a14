"""DiffAE on FFHQ 256 x 256 (all 70,000 images).

Paper:    template ffhq256_autoenc: 200 million images in batches of 64; the released file has seen 100 million.
Command:  python launch/main.py --config=configs/diffae_ffhq256.py --workdir=runs/diffae --data_dir=DIR
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config


def get_config(variant: str = "") -> ConfigDict:
    return diffae_config("ffhq", variant, images=200_000_000, batch_size=64, image_size=256)
