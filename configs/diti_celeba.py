r"""DiTi on CelebA 64 x 64 (crop 128 x 128, resized; the 162,770 training images).

Paper:    38 million images seen in batches of 128 (60 million with mode=stop_grad,stages=unbalanced), Adam at 2e-4,
average 0.9999. Table 1 of DBAE's paper: AP .623, r .617, MSE .392.
Command:  python launch/main.py --config=configs/diti_celeba.py --workdir=runs/diti --data_dir=DIR \
          --config.train.init_from=runs/ddpm
Cost:     296,875 steps x 128 images x 91 GFLOP = 3.5e18 FLOP for training.
Measured here: nothing yet.
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    config = gaussian_config("diti", "celeba", variant, images=38_000_000)
    config.optim.lr = 2e-4  # 1e-4 times the 64 images of each of the README's two GPUs / 32; PDAE's there is the same
    if config.method.mode == "stop_grad" and len(config.method.stages) > 1:
        config.train.total_steps = 60_000_000 // 128
    return config
