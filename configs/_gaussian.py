"""What all DDPM, PDAE and DiTi experiments share: the published recipe of training, and networks by image size.

Images are encoded and decoded in 20 evaluations each way; published are `grid=ddim_range order=1 steps=100`, of PDAE's
scripts `grid=ddim_linspace`, and `invert_steps` from 100 to 1000: docs/official_commands.md has each.

Variants are in VARIANTS; the first value is the default.
"""

from ml_collections import ConfigDict

from configs._shared import FROM_NOISE, choose, infer_endpoint, shared_config

_SSL = {"ssl": ("none", "simclr", "simclr_without_aug", "simsiam")}
VARIANTS = {
    "ddpm": {},
    "pdae": _SSL,
    "diti": {"mode": ("base", "stop_grad", "dual"), "stages": ("unbalanced", "balanced")} | _SSL,
}

# The U-Nets of DiffAE (Preechakul et al. 2022), by image size. An imported base may have another shape.
BATCH = 128
UNETS = {
    16: {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (8,)},
    32: {"width": 32, "mult": (1, 2, 2), "blocks": 1, "attention": (8,)},
    64: {"width": 64, "mult": (1, 2, 4, 8), "blocks": 2, "attention": (16,)},
    128: {"width": 128, "mult": (1, 1, 2, 3, 4), "blocks": 2, "attention": (16,)},
    256: {"width": 128, "mult": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (16,)},
}
ENCODERS = {  # channels of the convolutions
    16: (32, 64),
    32: (32, 64, 128),
    64: (64, 128, 128, 128),
    128: (64, 128, 256, 256, 256),
}

# DiTi's 64 blocks: 512 dimensions by stages of time-steps, most of them in 100 .. 299, or 8 for each block
STAGES = {
    "unbalanced": {"stages": (50, 100, 300, 500, 1000), "dims_per_stage": (10, 25, 327, 100, 50)},
    "balanced": {"stages": (1000,), "dims_per_stage": (512,)},
}

# Of DDPMs so small that what is drawn with fresh noise is cleaner.
ANCESTRAL = {"grid": "ddim_range", "order": 1, "eta": 1.0, "steps": 50}


def gaussian_config(method: str, dataset: str, variant: str, images: int, *image_sizes: int) -> ConfigDict:
    """The published recipe of "ddpm", "pdae" or "diti" for one data set.

    images: how many training sees. image_sizes: see `choose`, the data set's where there are none.
    """
    chosen, image_size = choose(variant, VARIANTS[method], image_sizes or (0,))
    config = shared_config(dataset, images // BATCH, BATCH, FROM_NOISE, image_size)
    size = config.data.image_size
    fields = {
        "name": method,
        "image_size": config.data.get_ref("image_size"),
        "channels": config.data.get_ref("channels"),
        "dtype": "bfloat16",
        "remat": False,
        "unet": UNETS[size] | {"head_dim": -1, "heads": 1, "dropout": 0.1},
    }
    if method != "ddpm":
        fields |= {
            "latent_dim": 512,
            "encoder": {"widths": ENCODERS[size], "attention": (16,), "heads": 4},
        }
    if method == "diti":
        fields |= {"mode": chosen["mode"], "k": 64, "k_per_stage": (), **STAGES[chosen["stages"]]}
    config.method = fields
    infer_endpoint(config)
    if method in ("pdae", "diti"):  # PDAE's flat code is cut into as many equal blocks
        config.tasks.counterfactual.update(blocks=64 * (method == "pdae"), ranges=((2, 4), (16, 8), (24, 8), (32, 32)))
    config.optim = {"name": "adam", "lr": 1e-4, "ema_decay": 0.9999}
    if method == "ddpm":
        config.tasks.sample.every_steps = 10_000
    else:
        config.tasks.reconstruct.every_steps = 10_000
        config.method.ssl = {}
        if chosen["ssl"] != "none":
            _add_ssl(config, chosen["ssl"])
    return config


def _add_ssl(config: ConfigDict, name: str) -> None:
    """The self-supervised loss of DiTi's configs, and the optimizer of its heads."""
    kind = name.partition("_")[0]
    config.method.ssl = {
        "kind": kind,
        "weight": 0.01,
        "main_weight": 1.0,
        "start_step": 200_000,
        "batch_size": {"simclr": 512, "simsiam": 128}[kind],
        "augment": not name.endswith("without_aug"),
        "jitter": {"simclr": 1.0, "simsiam": 0.5}[kind],
        "encoder_decay": 1e-6,
        "hidden": 2048,
    }
    config.method.ssl.update({"simclr": {"temperature": 0.5, "out": 128}, "simsiam": {"bottleneck": 128}}[kind])
    # There 1e-3 and 1e-4 times (images of a GPU) / 32, on the two GPUs that its README names; half a cosine to a tenth.
    lr = {"simclr": 8e-3, "simsiam": 2e-4}[kind]
    schedule = {"decay_steps": config.train.total_steps, "decay_to": 0.1}
    config.optim.ssl = {"name": "sgd", "lr": lr, "weight_decay": 1e-6} | schedule


def digits_config(method: str, variant: str, steps: int) -> ConfigDict:
    """Made small enough for two CPU cores: 16 x 16 images of one channel, batches of 64."""
    config = for_digits(gaussian_config(method, "digits", variant, images=steps * BATCH))
    if "encoder" in config.method:
        config.method.latent_dim = 16
        config.method.encoder.attention = (4,)
        config.tasks.counterfactual.update(blocks=4, ranges=((0, 1), (1, 1), (2, 1), (3, 1)))
    if "k" in config.method:
        balanced = len(config.method.stages) == 1
        stages, dims = ((1000,), (16,)) if balanced else ((125, 250, 500, 1000), (2, 3, 6, 5))
        config.method.update(k=8, stages=stages, dims_per_stage=dims)
        config.tasks.counterfactual.update(blocks=0, ranges=((0, 1), (1, 1), (2, 2), (4, 4)))
    if "ssl" in config.optim:
        config.method.ssl.update(start_step=0, batch_size=64, hidden=128)
        config.optim.ssl.update(lr=0.1, weight_decay=0.0, decay_steps=config.train.total_steps)
    if method != "ddpm":
        config.tasks.reconstruct.every_steps = 1000
    else:
        config.sampling.update(ANCESTRAL)
        config.tasks.sample.every_steps = 1000
    return config


def for_digits(config: ConfigDict) -> ConfigDict:
    """What the small experiments of all methods have in common."""
    config.data.update(channels=1, flip=False, workers=0)
    config.method.dtype = "float32"
    config.method.unet.dropout = 0.0
    config.optim.update(lr=1e-3, ema_decay=0.99)
    config.train.update(batch_size=64, checkpoint_every=500, log_every=50, keep_last=1, keep_every=0)
    config.tasks.sample.batch_size = 64
    config.tasks.reconstruct.update(batch_size=99, num_images=-1, grid_images=12)
    config.tasks.evaluate.update(batch_size=99, without=("lpips", "fid"))  # too small, too few images
    config.tasks.interpolate.update(first="3", second="4", gif=True)
    config.tasks.counterfactual.update(first="3", second="4")
    config.tasks.manipulate.update(attribute="slant", epochs=200, lr=1e-2)
    config.tasks.probe.update(epochs=200, lr=1e-2)
    return config
