"""The latent prior of an auto-encoder of scikit-learn's digits: 4 layers of 256 for codes of 64 dimensions.

Paper:    none; the 1,500 training images' codes.
Command:  python launch/main.py --config=configs/latent_prior_digits.py --data_dir=RUN/encode --workdir=runs/prior
          RUN is that of the auto-encoder, on which --task=encode ran.
Cost:     3,000 steps of 256 codes, half a minute to two minutes on two CPU cores.
Measured: on the codes of the demonstration's DBAE. Frechet distance at unit scale of 750 samples to 750 codes 0.87, of
          750 codes to the 750 others 0.72. A sample's nearest code is 4.0 away, a code's 3.2 (medians): none is copied.
Variants: none.
"""

from ml_collections import ConfigDict

from configs._latent_prior import small_latent_prior_config


def get_config(variant: str = "") -> ConfigDict:
    return small_latent_prior_config(variant, latent_dim=64, layers=4, total_codes=768_000)
