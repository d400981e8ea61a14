"""What the small experiments at 32 x 32 share, emoji and Fashion-MNIST: hours on two CPU cores, minutes on a GPU."""

from ml_collections import ConfigDict

from configs._gaussian import ANCESTRAL


def small(config: ConfigDict) -> ConfigDict:
    """Batches of 32 in float32, ten times the published rate at first and a hundredth of that at last."""
    config.data.workers = 0
    config.method.dtype = "float32"
    config.method.unet.update(blocks=1, attention=(8,), dropout=0.0)
    config.optim.update(lr=1e-3, ema_decay=0.999, decay_steps=config.train.get_ref("total_steps"), decay_to=0.01)
    config.train.update(batch_size=32, checkpoint_every=500, log_every=50, keep_last=1, keep_every=0)
    config.tasks.reconstruct.every_steps = config.tasks.sample.every_steps = 2000
    config.tasks.evaluate.disentanglement_images = -1
    config.tasks.evaluate.dci_images = 500
    config.tasks.sample.batch_size = 64
    return config


def small_dbae(config: ConfigDict) -> ConfigDict:
    """Codes of 128 dimensions, decoded in five evaluations."""
    small(config)
    config.method.latent_dim = 128
    config.method.unet.head_dim = 32
    config.method.encoder.update(blocks=1, attention=(8,))
    config.method.generator.width = 6
    config.sampling.steps = 5
    config.tasks.sample.every_steps = 0  # a run of codes has none of its own
    return config


def small_gaussian(config: ConfigDict) -> ConfigDict:
    """DDPM, or DiTi with codes of 64 dimensions in 16 blocks, four of each stage of 125, 125, 250 and 500 steps."""
    small(config)
    if config.method.name == "ddpm":
        config.sampling.update(ANCESTRAL)
        config.tasks.reconstruct.every_steps = 0
        return config
    balanced = len(config.method.stages) == 1
    stages, dims = ((1000,), (64,)) if balanced else ((125, 250, 500, 1000), (8, 12, 24, 20))
    config.method.update(latent_dim=64, k=16, stages=stages, dims_per_stage=dims)
    config.method.encoder.attention = (8,)
    config.tasks.counterfactual.ranges = ((0, 2), (2, 2), (4, 4), (8, 8))
    config.tasks.sample.every_steps = 0
    if "ssl" in config.optim:
        config.method.ssl.update(batch_size=64, hidden=128)
        config.optim.ssl.update(lr=0.1, weight_decay=0.0)
    return config


def ssl_from_the_start(config: ConfigDict) -> ConfigDict:
    """A self-supervised loss, where there is one, in all steps, of which there are fewer than the published."""
    if "ssl" in config.optim:
        config.method.ssl.start_step = 0
        config.optim.ssl.decay_steps = config.train.get_ref("total_steps")
    return config


def of_emoji(config: ConfigDict) -> ConfigDict:
    """Tasks on the 371 pictures that are held out: the doctor and the judge, skin that becomes dark."""
    for task in ("reconstruct", "evaluate"):
        config.tasks[task].update(batch_size=53, num_images=-1)
    config.tasks.reconstruct.grid_images = 12
    config.tasks.evaluate.without = ("lpips", "fid")  # too small, too few
    for task in ("interpolate", "counterfactual"):
        config.tasks[task].update(first="84", second="94")
    config.tasks.interpolate.gif = True
    config.tasks.manipulate.update(attribute="dark skin", epochs=200, lr=1e-2)
    config.tasks.probe.update(epochs=200, lr=1e-2)
    return config


def of_fashion(config: ConfigDict) -> ConfigDict:
    """Tasks on the first 500 pictures that are held out: a boot and a pullover, what becomes a dress."""
    for task in ("reconstruct", "evaluate"):
        config.tasks[task].update(batch_size=50, num_images=500)
    config.tasks.reconstruct.grid_images = 12
    config.tasks.evaluate.without = ("lpips", "fid")
    config.tasks.interpolate.gif = True
    config.tasks.manipulate.update(attribute="Dress", epochs=20, lr=1e-2)
    config.tasks.probe.update(epochs=20, lr=1e-2)
    return config
