"""The state dict of PDAE's base DDPM (github.com/ckczzj/PDAE): ADM's U-Net alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port.config_yml import ConfigYml
from diffrep_jax.port.engine import POINTWISE_1D, Table
from diffrep_jax.port.unet import ends, rules, unet_fields

PARTS = {"denoise_fn": ""}
UNDETERMINED = ("unet.heads", "unet.head_dim")
RULES = (*ends("", "unet"), *rules("", "unet", POINTWISE_1D))


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section."""
    return Table(RULES, unet_fields(method["image_size"], method["unet"]))


def check(method: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a UserError where `source` is no state dict of a U-Net; the table's own check compares the shapes."""
    if "time_embed.0.weight" not in shapes or "label_emb.weight" in shapes:
        raise UserError(f"{source} is not the state dict of a DDPM: time_embed.0.weight alone would be there.")


def unused(method: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Official names without a use here: none."""
    return {}


def shape(yml: ConfigYml) -> dict[str, Any]:
    """The fields of a config's `method` section that the base's config.yml determines."""
    size = image_size(yml)
    return {"image_size": size, **network(yml, size)}


def image_size(yml: ConfigYml) -> int:
    old = "dataset_config.image_size"  # the name in files of 2022
    return yml.number(old if yml.has(old) else "train_dataset_config.image_size")


def network(yml: ConfigYml, size: int) -> dict[str, Any]:
    """`channels` and `unet` for images of `size`; UserError for a process or a network that differs from ours.

    Attention is given there by the factor of down-sampling, here by the image size.
    """
    for name, supported in (("timesteps", 1000), ("betas_type", "linear")):
        yml.require(f"diffusion_config.{name}", supported)
    yml.require("diffusion_config.linear_beta_start", 1e-4)
    yml.require("diffusion_config.linear_beta_end", 0.02)
    place = "denoise_fn_config"
    unsupported = {"learn_sigma": False, "use_new_attention_order": False, "num_class": None, "dims": 2}
    for name, supported in unsupported.items():
        yml.require(f"{place}.{name}", supported)
    mult, factors = yml.numbers(f"{place}.channel_multiplier"), yml.numbers(f"{place}.attention_resolutions")
    unet = {
        "width": yml.number(f"{place}.base_channel"),
        "mult": mult,
        "blocks": yml.number(f"{place}.num_residual_blocks_of_a_block"),
        "attention": tuple(size // 2**level for level in range(len(mult)) if 2**level in factors),
        "heads": yml.number(f"{place}.num_heads"),
        "head_dim": yml.number(f"{place}.head_channel"),
        "dropout": yml.fraction(f"{place}.dropout"),
    }
    return {"channels": yml.number(f"{place}.input_channel"), "unet": unet}
