"""DDPM on Noto Emoji, 64 x 64 for a GPU, or 32 x 32 for two CPU cores: the base of DiTi.

Paper:    none; 3,415 pictures train.
Command:  npm pack emoji-datasource-google
          python launch/main.py --config=configs/ddpm_emoji.py:size=32 --workdir=runs/ddpm_emoji --data_dir=.
Measured: 3,000 steps at 32 x 32, 50 minutes on two CPU cores, are too few: docs/samplers.md, "DiTi from z and noise".
Variants: size=64|32.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config
from configs._small import of_emoji, small_gaussian


def get_config(variant: str = "") -> ConfigDict:
    config = of_emoji(gaussian_config("ddpm", "emoji", variant, 6_400_000, 64, 32))
    config.optim.ema_decay = 0.999
    if config.data.image_size == 32:
        small_gaussian(config)
        config.train.total_steps = 20_000
    return config
