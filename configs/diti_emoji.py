r"""DiTi on Noto Emoji, 64 x 64 for a GPU, or 32 x 32 for two CPU cores.

Paper:    none; 3,415 pictures train, 371 of other emoji are held out.
Command:  python launch/main.py --config=configs/diti_emoji.py:size=32 --workdir=runs/diti_emoji --data_dir=. \
          --config.train.init_from=runs/ddpm_emoji
          That is the run of configs/ddpm_emoji.py at the same size; the data are those of its command.
Measured: 3,000 steps at 32 x 32 on a base of 3,000 are too few: docs/samplers.md, "DiTi from z and noise".
Variants: size=64|32, mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config
from configs._small import of_emoji, small_gaussian, ssl_from_the_start


def get_config(variant: str = "") -> ConfigDict:
    config = of_emoji(ssl_from_the_start(gaussian_config("diti", "emoji", variant, 6_400_000, 64, 32)))
    config.optim.ema_decay = 0.999
    if config.data.image_size == 32:
        small_gaussian(config)
        config.train.total_steps = 10_000
    return config
