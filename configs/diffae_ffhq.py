"""DiffAE on FFHQ 128 x 128 (all 70,000 images).

Paper:    template ffhq128_autoenc_130M, beside which there is one of 72 million images. Table 1, on CelebA-HQ in
100 steps: SSIM .991, LPIPS .011, MSE 6.07e-5 with both codes; .677, .073, .007 with a random x_T.
Command:  python launch/main.py --config=configs/diffae_ffhq.py --workdir=runs/diffae --data_dir=DIR
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._diffae import diffae_config


def get_config(variant: str = "") -> ConfigDict:
    return diffae_config("ffhq", variant, images=130_000_000)
