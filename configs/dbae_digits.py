"""DBAE on scikit-learn's 1,797 scanned digits, 16 x 16: the demonstration, and the default config.

Paper:    none; 1,500 images train, 297 of mostly other writers are held out.
Command:  python launch/main.py --config=configs/dbae_digits.py --workdir=runs/digits
Cost:     800 steps x 64 images x 0.25 GFLOP, about three minutes on two CPU cores.
Measured: see benchmarks/RESULTS.md.
Variants: bridge=vp|ve|vp_simple|ve_simple, encoder=deterministic|stochastic.
"""

from ml_collections import ConfigDict

from configs._dbae import dbae_config


def get_config(variant: str = "") -> ConfigDict:
    config = dbae_config("digits", variant, total_steps=800)
    config.data.update(channels=1, flip=False, workers=0)
    config.method.update(latent_dim=64, dtype="float32")
    config.method.unet.update(blocks=1, attention=(8,), head_dim=16, dropout=0.0)
    config.method.encoder.update(blocks=1, attention=(8,))
    config.method.generator.update(width=8, norm_images=0)
    config.optim.update(lr=1e-3, ema_decay=0.99)
    config.train.update(batch_size=64, checkpoint_every=250, log_every=50, keep_last=1, keep_every=0)
    config.sampling.update(sampler="euler", grid="karras", eta=0.0, steps=20)
    config.tasks.reconstruct.update(every_steps=500, batch_size=99, num_images=-1, grid_images=12)
    config.tasks.interpolate.update(first="3", second="4", gif=True)
    # Too small for AlexNet, too few for an FID.
    config.tasks.evaluate.update(batch_size=99, without=("lpips", "fid"), disentanglement_images=-1, dci_images=500)
    config.tasks.counterfactual.update(first="3", second="4")
    # So small a network reads x_T alone: from that of the unchanged code, as published, no image would change.
    steps = {"endpoint": "moved", "scales": (-0.1, -0.05, 0.0, 0.05, 0.1)}
    config.tasks.manipulate.update(attribute="slant", epochs=200, lr=1e-2, **steps)
    config.tasks.sample.batch_size = 64
    config.tasks.probe.update(epochs=200, lr=1e-2)  # of 1,350 images
    return config
