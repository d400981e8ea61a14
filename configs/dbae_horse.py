"""DBAE on LSUN Horse 128 x 128 (2,000,340 images).

Paper:    Qualitative results only; no number is published.
Command:  python launch/main.py --config=configs/dbae_horse.py --workdir=runs/horse --data_dir=DIR
Cost:     as configs/dbae_ffhq.py for training; the authors used 4 GPUs.
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config("horse", variant, total_steps=1_020_000)
