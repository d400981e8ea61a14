r"""DiTi on LSUN Bedroom 128 x 128 (3,033,042 images).

Paper:    70 million images seen in batches of 128, Adam at 5e-5, average 0.9999.
Command:  python launch/main.py --config=configs/diti_bedroom.py --workdir=runs/diti --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     546,875 steps x 128 images x 482 GFLOP = 3.4e19 FLOP for training.
Measured here: nothing yet.
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    config = gaussian_config("diti", "bedroom", variant, images=70_000_000)
    config.optim.lr = 5e-5  # the rate of eight GPUs in DiTi's files, for both methods
    return config
