"""DBAE on images of one's own: a folder, a zip, an LMDB or a TFDS data set; 32 x 32 is for two CPU cores.

Paper:    none; the recipe of FFHQ, of emoji at 32 px. Every tenth image is held out as "test".
Command:  python launch/main.py --config=configs/dbae_folder.py --workdir=runs/mine --data_dir=DIR
Cost:     at 128 px 200,000 steps x 256 images x 560 GFLOP = 2.9e19 FLOP for training; at 32 px 10,000 x 32 images.
Measured here: nothing yet.
Variants: size=128|256|64|32, bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config
from configs._small import small_dbae


def get_config(variant: str = "") -> ConfigDict:
    config = dbae_config("folder", variant, 200_000, 128, 256, 64, 32)
    if config.data.image_size == 32:
        small_dbae(config)
        config.train.total_steps = 10_000
    return config
