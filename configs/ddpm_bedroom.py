"""DDPM on LSUN Bedroom 128 x 128 (3,033,042 images).

Paper:    the base of PDAE and DiTi, whose own training they do not tell. Here: as long as theirs, 70 million images.
Command:  python launch/main.py --config=configs/ddpm_bedroom.py --workdir=runs/ddpm --data_dir=DIR
Cost:     546,875 steps x 128 images x 443 GFLOP = 3.1e19 FLOP for training.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("ddpm", "bedroom", variant, images=70_000_000)
