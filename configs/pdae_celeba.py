r"""PDAE on CelebA 64 x 64 (crop 128 x 128, resized; the 162,770 training images).

Paper:    38 million images seen in batches of 128, Adam at 2e-4, average 0.9999. Table 1 of DBAE's paper: AP
.602, r .596, MSE .410.
Command:  python launch/main.py --config=configs/pdae_celeba.py --workdir=runs/pdae --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     296,875 steps x 128 images x 91 GFLOP = 3.5e18 FLOP for training.
Measured here: nothing yet.
Variants: ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    config = gaussian_config("pdae", "celeba", variant, images=38_000_000)
    config.optim.lr = 2e-4
    return config
