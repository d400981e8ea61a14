"""DBAE on FFHQ 256 x 256: the networks of its code for that size, which its paper does not use.

Paper:    none; steps and batches are those of 128 px.
Command:  python launch/main.py --config=configs/dbae_ffhq256.py --workdir=runs/ffhq256 --data_dir=DIR
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config("ffhq", variant, 1_020_000, 256)
