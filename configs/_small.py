"""What the small experiments at 32 x 32 share, emoji and Fashion-MNIST: hours on two CPU cores, minutes on a GPU."""

from ml_collections import ConfigDict


def small(config: ConfigDict) -> ConfigDict:
    """Batches of 32 in float32, ten times the published rate at first and a hundredth of that at last."""
    config.data.workers = 0
    config.method.dtype = "float32"
    config.method.unet.update(blocks=1, attention=(8,), dropout=0.0)
    config.optim.update(lr=1e-3, ema_decay=0.999, decay_steps=config.train.get_ref("total_steps"), decay_to=0.01)
    config.train.update(batch_size=32, checkpoint_every=500, log_every=50, keep_last=1, keep_every=0)
    config.tasks.reconstruct.update(every_steps=2000, batch_size=53, num_images=-1, grid_images=12)
    config.tasks.evaluate.update(batch_size=53, disentanglement_images=-1, dci_images=500)
    config.tasks.sample.batch_size = 64
    return config


def small_dbae(config: ConfigDict) -> ConfigDict:
    """Codes of 128 dimensions."""
    small(config)
    config.method.latent_dim = 128
    config.method.unet.head_dim = 32
    config.method.encoder.update(blocks=1, attention=(8,))
    config.method.generator.width = 6
    config.sampling.update(sampler="heun", steps=20)
    return config
