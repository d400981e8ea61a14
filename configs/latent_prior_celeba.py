"""The latent prior of an auto-encoder of CelebA 64 x 64, DBAE, PDAE, DiTi or DiffAE: 10 layers of 2048.

Paper:    DiffAE's CelebA recipe: 301 million codes, batch 512.
Command:  python launch/main.py --config=configs/latent_prior_celeba.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran; of a DiffAE, which trains on all images,
          with --config.data.split=all; also for the 512 numbers of your own images.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import latent_prior_config


def get_config(variant: str = "") -> ConfigDict:
    return latent_prior_config(variant, latent_dim=512, layers=10, batch_size=512, total_codes=301_000_000)
