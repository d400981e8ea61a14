"""DiffAE on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/diffae_digits.py --workdir=runs/diffae
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config
from configs._gaussian import for_digits


def get_config(variant: str = "") -> ConfigDict:
    config = for_digits(diffae_config("digits", variant, images=2000 * 64, batch_size=64))
    config.method.latent_dim = 16
    config.method.unet.update(blocks=1, attention=(8,), emb_width=64)
    config.method.encoder.update(mult=(1, 2), blocks=1, attention=(8,))
    return config
