"""DDPM on LSUN Horse 128 x 128 (2,000,340 images).

Paper:    the base of PDAE, whose own training is not described. Here: 64 million images, as for FFHQ.
Command:  python launch/main.py --config=configs/ddpm_horse.py --workdir=runs/ddpm --data_dir=DIR
Cost:     500,000 steps x 128 images x 443 GFLOP = 2.8e19 FLOP for training.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("ddpm", "horse", variant, images=64_000_000)
