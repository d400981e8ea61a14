"""The official state dicts of PDAE (github.com/ckczzj/PDAE) and of DiTi: the encoder's and the decoder's, side by side.

The names start with `encoder.` and `decoder.`; the decoder is the frozen DDPM and, with `shift_`, the second way up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port.ddpm import block_names
from diffrep_jax.port.engine import CONV, DENSE, NORM, POINTWISE_1D, Rule, Table, dense_of_image
from diffrep_jax.port.unet import ends, rules

DECODER_RULES = (
    *ends("decoder.", "unet"),
    *rules("decoder.", "unet", POINTWISE_1D),
    *rules("decoder.", "gradient_estimator", POINTWISE_1D, "shift_"),
    Rule("decoder.{shift_block}.emb_z_layers.1", "gradient_estimator/{shift_block}/code", DENSE),
    Rule("decoder.label_emb", "gradient_estimator/code", DENSE),
    Rule("decoder.shift_out.0", "gradient_estimator/norm_out", NORM),
    Rule("decoder.shift_out.2", "gradient_estimator/conv_out", CONV),
)


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section."""
    blocks, attention = block_names(method)
    fields = {"block": blocks, "attention": attention}
    for field, names in list(fields.items()):
        fields[f"shift_{field}"] = {f"shift_{n}": ours for n, ours in names.items() if not n.startswith("input_blocks")}
    return Table((*DECODER_RULES, *encoder_rules(method)), fields)


def encoder_rules(method: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The encoder is one numbered sequence: convolution, [attention], GN, SiLU, and so on, flatten, linear."""
    size, number, out = method["image_size"], 0, []
    for i in range(len(method["encoder"]["widths"])):
        size //= 2
        out.append(Rule(f"encoder.encoder.{number}", f"encoder/conv{i}", CONV))
        number += 1
        if size in method["encoder"]["attention"]:
            for official, ours, kind in (
                ("norm", "norm", NORM),
                ("qkv", "qkv", POINTWISE_1D),
                ("proj_out", "proj", POINTWISE_1D),
            ):
                out.append(Rule(f"encoder.encoder.{number}.{official}", f"encoder/attention{i}/{ours}", kind))
            number += 1
        out.append(Rule(f"encoder.encoder.{number}", f"encoder/norm{i}", NORM))
        number += 2
    return (*out, Rule(f"encoder.encoder.{number + 1}", "encoder/out", dense_of_image(size)))


def check(method: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a UserError where `source` is no state dict of PDAE's, or has another size of code than the config.

    All else, the table's own check compares.
    """
    name = "decoder.label_emb.weight"
    if name not in shapes:
        raise UserError(f"{source} is not a state dict of PDAE or DiTi: {name} is not there.")
    if shapes[name][1] != method["latent_dim"]:
        raise UserError(
            f"{source} has latent_dim={shapes[name][1]}, but config.method.latent_dim is {method['latent_dim']}; "
            "use the config it fits."
        )


def unused(method: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Official names without a use here: none."""
    return {}
