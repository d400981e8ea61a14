"""DDPM on Fashion-MNIST, grey pictures of clothes at 32 x 32: the base of DiTi.

Paper:    none; 60,000 pictures train.
Command:  python launch/main.py --config=configs/ddpm_fashion.py --workdir=runs/ddpm_fashion --data_dir=DIR
          DIR is that of configs/dbae_fashion.py.
Measured: 2,500 steps of 32 images on two CPU cores at 50 to 70 images/s, the base of configs/diti_fashion.py's figures.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config
from configs._small import of_fashion, small_gaussian


def get_config(variant: str = "") -> ConfigDict:
    config = of_fashion(small_gaussian(gaussian_config("ddpm", "fashion", variant, 2_560_000)))
    config.data.channels = 1
    return config
