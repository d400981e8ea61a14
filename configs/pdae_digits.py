"""PDAE on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/pdae_digits.py --workdir=runs/pdae --config.train.init_from=runs/ddpm
Measured here: nothing yet.
Variants: ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import digits_config


def get_config(variant: str = "") -> ConfigDict:
    return digits_config("pdae", variant, steps=2000)
