"""DBAE on Noto Emoji, 64 x 64 for a GPU, or 32 x 32 for two CPU cores.

Paper:    none; 3,415 pictures train, 371 of other emoji are held out.
Command:  npm pack emoji-datasource-google
          python launch/main.py --config=configs/dbae_emoji.py:size=32 --workdir=runs/emoji --data_dir=.
Cost:     at 32 px 10,000 steps x 32 images, about three hours on two busy CPU cores (28 images/s).
Measured: at 32 px, 4,500 steps, held out: MSE .0120, SSIM .797, AP .516 (categories); the card in pretrained/ has more.
Variants: size=64|32, bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config
from configs._small import of_emoji, small_dbae


def get_config(variant: str = "") -> ConfigDict:
    config = of_emoji(dbae_config("emoji", variant, 50_000, 64, 32))
    config.train.batch_size = 128
    config.optim.ema_decay = 0.999
    if config.data.image_size == 32:
        small_dbae(config)
        config.train.total_steps = 10_000
    return config
