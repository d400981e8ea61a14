"""What all DBAE experiments share: the published recipe and the networks by image size.

Variants, as in `configs/dbae_celeba.py:bridge=ve,encoder=stochastic`, are in VARIANTS; the first value is the default.
"""

from ml_collections import ConfigDict, FieldReference

from diffrep_jax.config import parse_variant

VARIANTS = {
    "bridge": ("vp", "ve", "vp_simple", "ve_simple"),
    "encoder": ("deterministic", "stochastic"),
}

# image size -> the U-Net's width and levels, the encoder's levels, the sizes that have attention in each
NETWORKS = {
    64: {"width": 64, "unet": (1, 2, 4, 8), "encoder": (1, 2, 4, 8, 8)},
    128: {"width": 128, "unet": (1, 1, 2, 3, 4), "encoder": (1, 1, 2, 3, 4, 4)},
    256: {"width": 128, "unet": (1, 1, 2, 2, 4, 4), "encoder": (1, 1, 2, 2, 4, 4, 4)},
}


def dbae_config(variant: str, dataset: str, image_size: int, total_steps: int, split: str) -> ConfigDict:
    """The published recipe for one data set."""
    chosen = parse_variant(variant, VARIANTS)
    shape = {"image_size": FieldReference(image_size), "channels": FieldReference(3)}
    networks = NETWORKS[image_size]
    decoding = {
        "every_steps": 0,
        "sampler": "heun",
        "grid": "karras",
        "steps": 40,
        "churn_step_ratio": 0.0,
        "eta": 0.0,
        "seed": 0,
        "batch_size": 32,
        "split": "test",
    }
    return ConfigDict(
        {
            "seed": 0,
            "method": {
                "name": "dbae",
                **shape,
                "latent_dim": 512,
                "bridge": chosen["bridge"],
                "stochastic_encoder": chosen["encoder"] == "stochastic",
                "sigma_data": 0.5,
                "sigma_data_end": 0.5,
                "cov_xy": 0.0,
                "dtype": "bfloat16",
                "remat": False,
                "unet": {
                    "width": networks["width"],
                    "mult": networks["unet"],
                    "blocks": 2,
                    "attention": (32, 16, 8),
                    "head_dim": 64,
                    "dropout": 0.1,
                },
                "encoder": {
                    "width": networks["width"],
                    "mult": networks["encoder"],
                    "blocks": 2,
                    "attention": (16,),
                },
                "generator": {"width": 64},
            },
            "data": {
                "name": dataset,
                **shape,
                "split": split,
                "flip": True,
                "workers": 8,
                "worker_kind": "thread",
                "max_bad_fraction": 0.001,
            },
            "optim": {"name": "radam", "lr": 1e-4, "ema_decay": 0.9999},
            "train": {
                "total_steps": total_steps,
                "max_minutes": 0.0,
                "init_from": "",
                "batch_size": 256,
                "microbatch_size": -1,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep_last": 2,
                "keep_every": 100_000,
            },
            "mesh": {"data": -1, "fsdp": 1},
            "tasks": {
                "reconstruct": decoding | {"every_steps": 10_000, "num_images": 64, "grid_images": 8},
                "interpolate": decoding | {"first": "0", "second": "1", "points": 11, "gif": False},
                "prepare": {"size": 256, "crop": False, "quality": 95, "lossless": False, "workers": 8},
                "inspect_data": {"split": split, "num_images": -1, "shown": 64, "workers": 8},
                "probe": {
                    "every_steps": 0,
                    "dataset": "",
                    "epochs": 15,
                    "lr": 1e-3,
                    "batch_size": 128,
                    "regression_batch_size": 64,
                    "encode_batch_size": 64,
                    "num_images": -1,
                    "seed": 0,
                },
                "import": {"num_images": 16, "batch_size": 16, "seed": 0},
                "export": {},
            },
        }
    )
