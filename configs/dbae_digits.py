"""DBAE on scikit-learn's 1,797 scanned digits, 16 x 16: the demonstration, and the default config.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/dbae_digits.py --workdir=runs/digits
Cost:     800 steps x 64 images x 0.34 GFLOP, about three minutes on two CPU cores.
Measured: see benchmarks/RESULTS.md.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    config = dbae_config(variant, "digits", image_size=64, total_steps=800, split="train")
    config.data.update(image_size=16, channels=1, flip=False, workers=0)
    config.method.update(latent_dim=64, dtype="float32")
    config.method.unet.update(width=16, mult=(1, 2), blocks=1, attention=(8,), head_dim=16, dropout=0.0)
    config.method.encoder.update(width=16, mult=(1, 2, 4), blocks=1, attention=(8,))
    config.method.generator.update(width=8)
    config.optim.update(lr=1e-3, ema_decay=0.99)
    config.train.update(batch_size=64, checkpoint_every=250, log_every=50, keep_last=1, keep_every=0)
    config.tasks.reconstruct.update(every_steps=500, sampler="euler", steps=20, batch_size=99, num_images=-1)
    config.tasks.reconstruct.update(grid_images=12)
    config.tasks.interpolate.update(sampler="euler", steps=20, first="3", second="4", gif=True)
    # Too small for AlexNet, too few for an FID.
    config.tasks.evaluate.update(sampler="euler", steps=20, batch_size=99, lpips=False, fid=False)
    config.tasks.evaluate.update(disentanglement_images=-1, dci_images=500)
    config.tasks.counterfactual.update(sampler="euler", steps=20, first="3", second="4")
    config.tasks.manipulate.update(sampler="euler", steps=20, attribute="slant", epochs=200, lr=1e-2)
    config.tasks.probe.update(epochs=200, lr=1e-2)  # of 1,350 images
    return config
