"""The latent prior of an auto-encoder of Noto Emoji at 32 x 32: 6 layers of 256 for codes of 128 dimensions.

Paper:    none; the 3,415 training pictures' codes.
Command:  python launch/main.py --config=configs/latent_prior_emoji.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran; at 64 x 64 with --config.data.channels=512.
Cost:     5,000 steps of 256 codes, some minutes on two CPU cores.
Measured here: nothing yet.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import latent_prior_config


def get_config(variant: str = "") -> ConfigDict:
    config = latent_prior_config(variant, latent_dim=128, layers=6, batch_size=256, total_codes=1_280_000)
    config.method.mlp.width = 256
    config.optim.update(lr=1e-3, ema_decay=0.99)
    config.train.update(checkpoint_every=1000, log_every=200, keep_last=1, keep_every=0)
    return config
