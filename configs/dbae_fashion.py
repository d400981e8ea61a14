"""DBAE on Fashion-MNIST, grey pictures of clothes at 32 x 32.

Paper:    none; the published split of 60,000 and 10,000.
Command:  python launch/main.py --config=configs/dbae_fashion.py --workdir=runs/fashion --data_dir=DIR
          DIR has the four IDX files, as /usr/share/datasets/fashion-mnist of Debian's package dataset-fashion-mnist.
Cost:     10,000 steps x 32 images, about three hours on two busy CPU cores (28 images/s).
Measured: 3,000 steps: docs/samplers.md, "DBAE on emoji and on Fashion-MNIST".
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config
from configs._small import of_fashion, small_dbae


def get_config(variant: str = "") -> ConfigDict:
    config = of_fashion(small_dbae(dbae_config("fashion", variant, 10_000)))
    config.data.channels = 1
    return config
