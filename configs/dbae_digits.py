"""DBAE on scikit-learn's 1,797 scanned digits, 16 x 16: the demonstration, and the default config.

Command:  python launch/main.py --config=configs/dbae_digits.py --workdir=runs/digits
Variants: those of configs/_dbae.py.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    config = dbae_config(variant, "digits", image_size=64, total_steps=3000, split="train")
    config.data.update(image_size=16, channels=1, flip=False, workers=0)
    config.method.update(latent_dim=64, dtype="float32")
    config.method.unet.update(width=32, mult=(1, 2), blocks=1, attention=(8,), head_dim=32, dropout=0.0)
    config.method.encoder.update(width=32, mult=(1, 2, 2), blocks=1, attention=(8,))
    config.method.generator.update(width=8)
    config.optim.update(lr=1e-3, ema_decay=0.995)
    config.train.update(batch_size=64, checkpoint_every=1000, log_every=50, keep_every=0)
    config.tasks.reconstruct.update(every_steps=1000, steps=10, batch_size=64, num_images=-1, grid_images=12)
    config.tasks.interpolate.update(steps=10, gif=True)
    return config
