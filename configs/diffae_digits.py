"""DiffAE on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/diffae_digits.py --workdir=runs/diffae
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config
from configs._gaussian import digits


def get_config(variant: str = "") -> ConfigDict:
    config = diffae_config(variant, "digits", image_size=64, millions=1, split="train")
    small = {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (8,)}
    del config.method.encoder  # of another kind than `digits` knows
    digits(config)
    config.method.latent_dim = 16
    config.method.unet.update(emb_width=64)
    config.method.encoder = small
    config.train.total_steps = 2000
    return config
