"""DBAE on CelebA-HQ 128 x 128.

Paper:    None of its own: the paper evaluates its FFHQ model on these images (table 2). Train here for faces of this
set alone.
Command:  python launch/main.py --config=configs/dbae_celebahq.py --workdir=runs/celebahq --data_dir=DIR
Cost:     as configs/dbae_ffhq.py for training; the authors used 4 GPUs.
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config("celebahq", variant, total_steps=1_020_000)
