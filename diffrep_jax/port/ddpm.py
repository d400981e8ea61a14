"""The state dict of PDAE's base DDPM (github.com/ckczzj/PDAE): ADM's U-Net alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port.engine import POINTWISE_1D, Table
from diffrep_jax.port.unet import ends, rules, way_down, way_up

RULES = (*ends("", "unet"), *rules("", "unet", POINTWISE_1D))


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section."""
    blocks, attention = block_names(method)
    return Table(RULES, {"block": blocks, "attention": attention})


def block_names(method: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """{official: ours} of all residual blocks and of the attention of the section's U-Net."""
    unet = method["unet"]
    levels = method["image_size"], unet["mult"], unet["blocks"], unet["attention"]
    (down, down_attention), (up, up_attention) = way_down(*levels), way_up(*levels)
    return down | up, down_attention | up_attention


def check(method: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a UserError where `source` is no state dict of a U-Net; the table's own check compares the shapes."""
    if "time_embed.0.weight" not in shapes or "label_emb.weight" in shapes:
        raise UserError(f"{source} is not the state dict of a DDPM: time_embed.0.weight alone would be there.")


def unused(method: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Official names without a use here: none."""
    return {}
