r"""DiTi on FFHQ 128 x 128.

Paper:    64 million images seen in batches of 128, Adam at 1e-4, average 0.9999. DBAE's paper, table 1: AP
.614, r .622, MSE .384.
Command:  python launch/main.py --config=configs/diti_ffhq.py --workdir=runs/diti --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     500,000 steps x 128 images x 482 GFLOP = 3.1e19 FLOP for training.
Measured here: nothing yet.
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return gaussian_config("diti", "ffhq", variant, images=64_000_000)
