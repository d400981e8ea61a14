"""DDPM on CelebA 64 x 64 (crop 128 x 128, resized; the 162,770 training images).

Paper:    the base of PDAE and DiTi, whose own training they do not tell. Here: as long as theirs, 38 million images.
Command:  python launch/main.py --config=configs/ddpm_celeba.py --workdir=runs/ddpm --data_dir=DIR
Cost:     296,875 steps x 128 images x 80 GFLOP = 3.0e18 FLOP for training.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("ddpm", "celeba", variant, images=38_000_000)
