"""The latent prior of an auto-encoder of LSUN Bedroom 128 x 128: 20 layers of 2048.

Paper:    DiffAE's LSUN recipe: 2,001 million codes, batch 2048, Adam.
Command:  python launch/main.py --config=configs/latent_prior_bedroom.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import latent_prior_config, lsun


def get_config(variant: str = "") -> ConfigDict:
    config = lsun(latent_prior_config(variant, latent_dim=512, layers=20, batch_size=2048, total_codes=2_001_000_000))
    config.data.split = "all"  # the codes of all images, as the auto-encoders are trained on all
    return config
