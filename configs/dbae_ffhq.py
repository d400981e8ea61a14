"""DBAE on FFHQ 128 x 128.

Paper:    Table 1 (AP .656, r .638, MSE .404 with the deterministic encoder; .664, .675, .332 with the
stochastic one, linear probes on CelebA and LFW) and table 2 (reconstruction of CelebA-HQ: SSIM .953, LPIPS .072,
MSE 2.49e-3 deterministic; .920, .094, 4.81e-3 stochastic). The SSIM of table 2 is probably too high: its script
measured it along the wrong axes; trust MSE and LPIPS.
Command:  python launch/main.py --config=configs/dbae_ffhq.py --workdir=runs/ffhq --data_dir=DIR
Cost:     1,020,000 steps x 256 images x 560 GFLOP = 1.5e20 FLOP for training; the authors used 4 GPUs.
Measured here: nothing yet.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    return dbae_config("ffhq", variant, total_steps=1_020_000)
