"""What all latent priors share: DiffAE's recipe. The codes are those that `--task=encode` has written of a run.

DiffAE trains at lr 1e-4 with the batch and the number of codes below and clips gradients at norm 1; PDAE trains at lr
1e-3 with 128 codes a process, without an end, does not clip them (`--config.optim.clip_norm=0`), and clips the codes
that it samples (`--config.method.clipped=True`). Both use AdamW with weight decay 0.01 for faces and Adam for LSUN.
Codes are drawn in 20 evaluations, by PDAE in 100: `grid=ddim_linspace order=1 steps=100`. There are no variants.
"""

from ml_collections import ConfigDict

from configs._shared import FROM_NOISE, shared_config
from diffrep_jax.config import parse_variant


def latent_prior_config(variant: str, latent_dim: int, layers: int, batch_size: int, total_codes: int) -> ConfigDict:
    """The recipe for codes of so many dimensions; `total_codes`: seen in training."""
    parse_variant(variant, {})
    config = shared_config("codes", total_codes // batch_size, batch_size, FROM_NOISE)
    config.data.update(channels=latent_dim, flip=False, workers=0)  # in memory: reading ahead would only cost
    config.method = {
        "name": "latent_prior",
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "beta": 0.008,
        "dtype": "float32",
        "clipped": False,
        "mlp": {"width": 2048, "layers": layers, "time_width": 64},
    }
    config.optim = {"name": "adamw", "lr": 1e-4, "ema_decay": 0.9999, "clip_norm": 1.0, "weight_decay": 0.01}
    return config


def small_latent_prior_config(variant: str, latent_dim: int, layers: int, total_codes: int) -> ConfigDict:
    """For a few thousand codes, on a CPU: narrow layers, and a rate and an average for few steps."""
    config = latent_prior_config(variant, latent_dim, layers, batch_size=256, total_codes=total_codes)
    config.method.mlp.width = 256
    config.optim.update(lr=1e-3, ema_decay=0.99)
    config.train.update(checkpoint_every=1000, log_every=200, keep_last=1, keep_every=0)
    return config


def lsun(config: ConfigDict) -> ConfigDict:
    """As the faces' recipe, but Adam: nothing decays."""
    kept = {name: value for name, value in config.optim.items() if name != "weight_decay"}
    config.optim = kept | {"name": "adam"}
    return config
