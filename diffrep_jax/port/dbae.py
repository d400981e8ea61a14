"""The official DBAE state dict (github.com/aailab-kaist/DBAE): the U-Net at the top level, `encoder.`, and the
generator as `decoder.` The names within the U-Net and the encoder are ADM's.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port.engine import (
    BATCH_NORM,
    CONV,
    DENSE,
    SPECTRAL_TRANSPOSED_CONV,
    Rule,
    Table,
    spectral_conv,
)
from diffrep_jax.port.unet import HALF_UNET, count, ends, half_unet_fields, rules, unet_fields

PARTS: dict[str, str] = {}
_SIZES = (8, 16, 32, 64, 128, 256)  # of images, and of the generator's features on the way there

RULES = (
    *ends("", "unet"),
    *rules("", "unet", CONV),
    Rule("label_emb", "unet/code", DENSE),
    *HALF_UNET,
    Rule("decoder.init.init.0", "generator/init_conv", SPECTRAL_TRANSPOSED_CONV),
    Rule("decoder.init.init.1", "generator/init_norm", BATCH_NORM),
    Rule("decoder.feat_{up}.1", "generator/up{up}/conv", spectral_conv(3)),
    Rule("decoder.feat_{up}.2", "generator/up{up}/norm", BATCH_NORM),
    Rule("decoder.se_{up}.main.1", "generator/excite{up}/squeeze", spectral_conv(4)),
    Rule("decoder.se_{up}.main.3", "generator/excite{up}/excite", spectral_conv(1)),
    Rule("decoder.to_{image}", "generator/{image}", spectral_conv(1)),
    # Built there for any image size, run for 256 px alone.
    Rule("decoder.feat_256.1", None, spectral_conv(3)),
    Rule("decoder.feat_256.2", None, BATCH_NORM),
)


Shape = Sequence[int]


def table(method: Mapping[str, Any]) -> Table:
    """The rules for a config's `method` section; UserError where no official checkpoint can have its image size."""
    size, unet, encoder = method["image_size"], method["unet"], method["encoder"]
    if size not in _SIZES:
        raise UserError(f"No official DBAE checkpoint has images of {size} px; sizes: {', '.join(map(str, _SIZES))}.")
    fields = (
        unet_fields(size, unet)
        | half_unet_fields(size, encoder)
        | {
            "up": {str(up): str(up) for up in _SIZES if up <= size},
            "image": {str(size): "to_image"},
        }
    )
    return Table(RULES, fields)


def infer(shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The fields of a config's `method` section that the shapes of a state dict determine.

    They do not determine the bridge, sigma_data_end, dropout and the channels of an attention head. The two widths are
    those of the first level, whose multiple is taken as 1 in the encoder. UserError where it is no DBAE state dict.
    """
    try:
        size = next(size for size in _SIZES if f"decoder.to_{size}.weight_orig" in shapes)
        latent_dim = shapes["label_emb.weight"][1]
        return {
            "image_size": size,
            "channels": shapes["out.2.weight"][0],
            "latent_dim": latent_dim,
            "stochastic_encoder": shapes["encoder.out.3.weight"][0] == 2 * latent_dim,
            "unet": _infer_unet(shapes, size),
            "encoder": _infer_encoder(shapes, size),
            "generator": {"width": shapes["decoder.init.init.1.weight"][0] // 32},
        }
    except (KeyError, StopIteration, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"Not an official DBAE state dict (looked for {error.args[0] if error.args else 'decoder.to_<size>'} among "
            f"{len(shapes)} names, such as {next(iter(shapes), 'none')})."
        ) from None


def _infer_unet(shapes: Mapping[str, Shape], size: int) -> dict[str, Any]:
    width = shapes["time_embed.0.weight"][1]
    ups = count(shapes, "output_blocks")
    # The last block of a level on the way up also holds a resampling block, at .1 or, behind attention, at .2.
    resampled = [n for n in range(ups) if any(f"output_blocks.{n}.{k}.in_layers.2.weight" in shapes for k in (1, 2))]
    period = resampled[0] + 1 if resampled else ups
    return {"width": width} | _infer_levels(shapes, size, "", width, period)


def _infer_encoder(shapes: Mapping[str, Shape], size: int) -> dict[str, Any]:
    # Channels change only in the first block of a level, one block behind the resampling.
    total = count(shapes, "encoder.input_blocks")
    changes = [n - 1 for n in range(1, total) if f"encoder.input_blocks.{n}.0.skip_connection.weight" in shapes]
    width = shapes["encoder.input_blocks.0.0.weight"][0]
    period = math.gcd(total, *changes)
    unet_period = _infer_unet(shapes, size)["blocks"] + 1
    if period % unet_period == 0:  # no change of channels in between, so shapes leave it open; official ones are equal
        period = unet_period
    return {"width": width} | _infer_levels(shapes, size, "encoder.", width, period)


def _infer_levels(shapes: Mapping[str, Shape], size: int, prefix: str, width: int, period: int) -> dict[str, Any]:
    """mult, blocks and attention of a way down on which a level starts at every `period`-th block."""
    levels = range(count(shapes, f"{prefix}input_blocks") // period)
    first = [f"{prefix}input_blocks.{level * period + 1}" for level in levels]
    return {
        "mult": tuple(shapes[f"{name}.0.in_layers.2.weight"][0] // width for name in first),
        "blocks": period - 1,
        "attention": tuple(size // 2**i for i, name in enumerate(first) if f"{name}.1.norm.weight" in shapes),
    }


def check(method: Mapping[str, Any], shapes: Mapping[str, Shape], source: str) -> None:
    """Raise a UserError that names both values where `source` has another model than a config's `method` section."""
    theirs, ours = _flat(infer(shapes)), _flat(method)
    for field, value in theirs.items():
        mine = ours[field]
        if field.endswith("attention"):  # sizes that no level has make no difference
            mine = tuple(size for size in value if size in mine)
        elif isinstance(value, tuple):
            mine = tuple(mine)
        if mine != value:
            raise UserError(
                f"{source} has {field}={value}, but config.method.{field} is {mine}; use the config it fits."
            )


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in section.items():
        # a ConfigDict is no Mapping
        out |= _flat(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key: value}
    return out


def unused(method: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Neutral values for the names that are of no use here, which the official code wants in a state dict."""
    size, width = method["image_size"], method["generator"]["width"]
    ups = [up for up in _SIZES if up <= size]
    out: dict[str, np.ndarray] = {}
    if size < 256:
        matrix = np.ones((width, 9 * width), np.float32)
        u, v = (np.full(n, n**-0.5, np.float32) for n in matrix.shape)
        out |= {f"decoder.feat_256.1.weight_{k}": x for k, x in (("u", u), ("v", v))}
        out["decoder.feat_256.1.weight_orig"] = matrix.reshape(width, width, 3, 3)
        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        out |= {f"decoder.feat_256.2.{leaf}": np.full(width, x, np.float32) for leaf, x in values.items()}
    norms = ["init.init.1", *(f"feat_{up}.2" for up in dict.fromkeys([*ups, 256]))]
    return out | {f"decoder.{norm}.num_batches_tracked": np.zeros((), np.int64) for norm in norms}
