"""The latent prior of an auto-encoder of Noto Emoji at 32 x 32: 6 layers of 256 for codes of 128 dimensions.

Paper:    none; the 3,415 training pictures' codes.
Command:  python launch/main.py --config=configs/latent_prior_emoji.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran; at 64 x 64 with --config.data.channels=512.
Cost:     5,000 steps of 256 codes, some minutes on two CPU cores.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import small_latent_prior_config


def get_config(variant: str = "") -> ConfigDict:
    return small_latent_prior_config(variant, latent_dim=128, layers=6, total_codes=1_280_000)
