r"""PDAE on FFHQ 128 x 128.

Paper:    64 million images seen in batches of 128, Adam at 1e-4, average 0.9999. DBAE's paper, table 1: AP
.597, r .603, MSE .416; table 2, reconstruction of CelebA-HQ: SSIM .994, LPIPS .007, MSE 3.84e-5 with the inferred x_T,
.689, .098, 5.01e-3 with a random one.
Command:  python launch/main.py --config=configs/pdae_ffhq.py --workdir=runs/pdae --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     500,000 steps x 128 images x 482 GFLOP = 3.1e19 FLOP for training.
Measured here: nothing yet.
Variants: ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("pdae", "ffhq", variant, images=64_000_000)
