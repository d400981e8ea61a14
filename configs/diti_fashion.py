r"""DiTi on Fashion-MNIST, grey pictures of clothes at 32 x 32.

Paper:    none; the published split of 60,000 and 10,000.
Command:  python launch/main.py --config=configs/diti_fashion.py --workdir=runs/diti --data_dir=DIR \
          --config.train.init_from=runs/ddpm_fashion
          DIR is that of configs/dbae_fashion.py, the base a run of configs/ddpm_fashion.py.
Measured: 3,000 steps on a base of 2,500, two CPU cores: docs/samplers.md, "DiTi from z and noise".
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import gaussian_config
from configs._small import of_fashion, small_gaussian, ssl_from_the_start


def get_config(variant: str = "") -> ConfigDict:
    config = of_fashion(small_gaussian(gaussian_config("diti", "fashion", variant, 1_280_000)))
    ssl_from_the_start(config)
    config.data.channels = 1
    return config
