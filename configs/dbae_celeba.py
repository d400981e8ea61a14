"""DBAE on CelebA 64 x 64 (crop 128 x 128, resized; the 162,770 training images).

Paper:    Table 1: AP .650, r .635, MSE .413 with the deterministic encoder; .655, .643, .369 with the stochastic
one (980,000 steps), linear probes on CelebA and LFW.
Command:  python launch/main.py --config=configs/dbae_celeba.py --workdir=runs/celeba --data_dir=DIR
Cost:     1,020,000 steps x 256 images x 120 GFLOP = 3.1e19 FLOP for training; the authors used 4 GPUs.
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    config = dbae_config("celeba", variant, total_steps=1_020_000)
    if config.method.stochastic_encoder:
        config.train.total_steps = 980_000
    return config
