"""DiTi on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/diti_digits.py --workdir=runs/diti --config.train.init_from=runs/ddpm
Measured here: nothing yet.
Variants: mode=base|stop_grad|dual, stages=unbalanced|balanced, ssl=none|simclr|simclr_without_aug|simsiam.
"""

from ml_collections import ConfigDict

from configs._gaussian import digits, gaussian_config


def get_config(variant: str = "") -> ConfigDict:
    return digits(gaussian_config("diti", variant, "digits", image_size=64, total_steps=3000, split="train"))
