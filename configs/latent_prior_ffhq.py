"""The latent prior of an auto-encoder of FFHQ 128 x 128: 10 layers of 2048.

Paper:    DiffAE's FFHQ recipe: 101 million codes, batch 256.
Command:  python launch/main.py --config=configs/latent_prior_ffhq.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import latent_prior_config


def get_config(variant: str = "") -> ConfigDict:
    config = latent_prior_config(variant, latent_dim=512, layers=10, batch_size=256, total_codes=101_000_000)
    config.data.split = "all"  # the codes of all images, as the auto-encoders are trained on all
    return config
