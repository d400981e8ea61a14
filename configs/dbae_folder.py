"""DBAE on images of one's own, 128 x 128: a folder, a zip, an LMDB or a TFDS data set.

Paper:    none; the recipe of FFHQ. Every tenth image is held out as "test".
Command:  python launch/main.py --config=configs/dbae_folder.py --workdir=runs/mine --data_dir=DIR
Cost:     200,000 steps x 256 images x 560 GFLOP = 2.9e19 FLOP for training.
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config("folder", variant, total_steps=200_000)
