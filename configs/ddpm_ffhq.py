"""DDPM on FFHQ 128 x 128.

Paper:    the base of PDAE and DiTi, whose own training they do not tell. Here: as long as theirs, 64 million images.
Command:  python launch/main.py --config=configs/ddpm_ffhq.py --workdir=runs/ddpm --data_dir=DIR
Cost:     500,000 steps x 128 images x 443 GFLOP = 2.8e19 FLOP for training.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("ddpm", "ffhq", variant, images=64_000_000)
