"""The state dict of the official latent prior's network, DiffAE's MLP with skips (github.com/ckczzj/PDAE)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port.config_yml import ConfigYml
from diffrep_jax.port.engine import DENSE, NORM, Rule, Table

PARTS = {"latent_denoise_fn": ""}
UNDETERMINED = ("mlp.time_width",)
# What is known of the codes is in another file there; unknown, as here, it is that of codes that are normalised.
BUFFERS = {"batch_stats/codes/mean": 0.0, "batch_stats/codes/std": 1.0, "batch_stats/codes/fingerprint": 0.0}


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section; its last layer is plain."""
    last = method["mlp"]["layers"] - 1
    rules = (
        Rule("time_embed.0", "mlp/time_in", DENSE),
        Rule("time_embed.2", "mlp/time_out", DENSE),
        Rule(f"layers.{last}.linear", "mlp/out", DENSE),
        Rule("layers.{i}.linear", "mlp/layer{i}", DENSE),
        Rule("layers.{i}.cond_layers.1", "mlp/scale{i}", DENSE),
        Rule("layers.{i}.linear_emb", None, DENSE),  # cond_layers.1 by another name
        Rule("layers.{i}.norm", "mlp/norm{i}", NORM),
    )
    return Table(rules, {"i": {str(i): str(i) for i in range(last)}}, BUFFERS)


def check(method: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a UserError where `source` is no latent prior, or of other codes than the config's."""
    name = "layers.0.linear.weight"
    if name not in shapes or "layers.0.cond_layers.1.weight" not in shapes:
        raise UserError(f"{source} is not the state dict of a latent prior: {name} and its scale are not there.")
    if shapes[name][1] != method["channels"]:
        raise UserError(
            f"{source} is for codes of {shapes[name][1]} dimensions, but config.method.channels is "
            f"{method['channels']}; set --config.data.channels={shapes[name][1]}."
        )


def unused(method: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The second names of the scales' layers, which the official code wants as well."""
    one, other = ".cond_layers.1.", ".linear_emb."
    return {name.replace(one, other): value for name, value in tensors.items() if one in name}


def shape(yml: ConfigYml) -> dict[str, Any]:
    """The fields of a config's `method` section that the prior's config.yml determines."""
    place = "latent_denoise_fn_config"
    yml.require(f"{place}.use_norm", True)
    yml.require(f"{place}.dropout", 0.0)
    mlp = {"width": "model_channel", "layers": "num_layers", "time_width": "time_emb_channel"}
    return {
        "clipped": True,  # as the code with such a file samples
        "channels": yml.number(f"{place}.input_channel"),
        "mlp": {ours: yml.number(f"{place}.{official}") for ours, official in mlp.items()},
    }
