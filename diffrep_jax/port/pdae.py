"""The official state dicts of PDAE (github.com/ckczzj/PDAE) and of DiTi: the encoder's and the decoder's in one.

The names start with `encoder.` and `decoder.`; the decoder is the frozen DDPM and, with `shift_`, the second way up.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.port import ddpm
from diffrep_jax.port.config_yml import ConfigYml
from diffrep_jax.port.engine import CONV, DENSE, NORM, POINTWISE_1D, Rule, Table, dense_of_image
from diffrep_jax.port.unet import ends, rules, unet_fields

log = logging.getLogger(__name__)

PARTS = {"encoder": "encoder.", "decoder": "decoder."}
UNDETERMINED = ("unet.heads", "unet.head_dim", "encoder.heads")

# The encoders by the name of their class there: channels of the convolutions
_FOR_64, _FOR_128 = (64, 128, 128, 128), (64, 128, 256, 256, 256)
ENCODERS = {"CELEBA64Encoder": _FOR_64} | {
    f"{name}Encoder": _FOR_128 for name in ("FFHQ", "CELEBAHQ", "BEDROOM", "HORSE")
}

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
    fields = unet_fields(method["image_size"], method["unet"])
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


def unused(method: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Official names without a use here: none."""
    return {}


def shape(yml: ConfigYml) -> dict[str, Any]:
    """The fields of a config's `method` section that PDAE's config.yml determines; UserError where it is DiTi's."""
    if yml.has("ssl_config.k") and yml.number("ssl_config.k") > 1 and not _without_pdae(yml):
        raise UserError(
            f"{yml.path} is of DiTi (ssl_config.k={yml.number('ssl_config.k')}), whose decoder sees a part of the code "
            "at each time; use a config of diti."
        )
    return networks(yml)


def _without_pdae(yml: ConfigYml) -> bool:
    """True for the official baselines that train the encoder by the SSL loss alone."""
    return yml.has("ssl_config.no_pdae") and yml.text("ssl_config.no_pdae") == "True"


def networks(yml: ConfigYml) -> dict[str, Any]:
    """The size of images and codes, the encoder and, where the base's own config.yml exists, the U-Net."""
    size, encoder = ddpm.image_size(yml), yml.text("encoder_config.model")
    if encoder not in ENCODERS:
        raise unknown("encoder", encoder, ENCODERS, f"{yml.path}: encoder_config.model")
    fields = {
        "image_size": size,
        "latent_dim": yml.number("encoder_config.latent_dim"),
        "encoder": {"widths": ENCODERS[encoder], "attention": (16,), "heads": 4},
    }
    base = yml.base()
    if base is not None:
        return fields | ddpm.network(base, size)
    named = yml.text("trained_ddpm_config") if yml.has("trained_ddpm_config") else "not named"
    log.warning("%s: the config of its base (%s) is in no folder above it: method.unet is ours.", yml.path, named)
    return fields
