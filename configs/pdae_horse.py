r"""PDAE on LSUN Horse 128 x 128 (2,000,340 images).

Paper:    batches of 128, Adam at 1e-4, average 0.9999, without an end. Here: 64 million images, as for FFHQ.
Command:  python launch/main.py --config=configs/pdae_horse.py --workdir=runs/pdae --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     500,000 steps x 128 images x 482 GFLOP = 3.1e19 FLOP for training.
Measured here: nothing yet.
Variants: ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("pdae", "horse", variant, images=64_000_000)
