"""DiffAE on scikit-learn's 1,797 scanned digits, 16 x 16.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/diffae_digits.py --workdir=runs/diffae
Cost:     6,000 steps of 64 images, as many as DDPM and DiTi have together.
Measured: of a code of 16 numbers, by --task=probe, average precision of the classes and r of the measures: 0.404 and
          0.673 after 2,000 steps, 0.633 and 0.781 after 6,000. The code comes into use late: its path starts at zero.
          MSE after 6,000: 0.0335 from a random x_T (the mean image's is 0.0438), 0.00014 with the inferred one, 50
          evaluations of order 1 on ddim_space each way.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config
from configs._gaussian import for_digits


def get_config(variant: str = "") -> ConfigDict:
    config = for_digits(diffae_config("digits", variant, images=6000 * 64, batch_size=64))
    config.method.latent_dim = 16
    config.method.unet.update(blocks=1, attention=(8,), emb_width=64)
    config.method.encoder.update(mult=(1, 2), blocks=1, attention=(8,))
    return config
