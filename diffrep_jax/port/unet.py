"""The names of ADM's U-Net (github.com/openai/guided-diffusion), which the official codes of all methods start from,
and those of DiffAE's encoder, its half.

Residual blocks are numbered there in the order of the forward pass; level and block follow from the configuration.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from diffrep_jax.port.engine import CONV, DENSE, NORM, POINTWISE_1D, POINTWISE_DENSE, Kind, Rule

HALF_UNET = (
    Rule("encoder.input_blocks.0.0", "encoder/conv_in", CONV),
    Rule("encoder.{encoder_block}.in_layers.0", "encoder/{encoder_block}/norm", NORM),
    Rule("encoder.{encoder_block}.in_layers.2", "encoder/{encoder_block}/conv", CONV),
    Rule("encoder.{encoder_block}.skip_connection", "encoder/{encoder_block}/skip", CONV),
    Rule("encoder.{encoder_attention}.norm", "encoder/{encoder_attention}/norm", NORM),
    Rule("encoder.{encoder_attention}.qkv", "encoder/{encoder_attention}/qkv", POINTWISE_1D),
    Rule("encoder.{encoder_attention}.proj_out", "encoder/{encoder_attention}/proj", POINTWISE_1D),
    Rule("encoder.out.0", "encoder/norm_out", NORM),
    Rule("encoder.out.3", "encoder/out", POINTWISE_DENSE),
)


def rules(official: str, ours: str, pointwise: Kind, field: str = "") -> tuple[Rule, ...]:
    """The rules of the residual blocks and the attention below the module `ours`, for names that start with `official`.

    The tables' fields are `{field}block` and `{field}attention`; `pointwise` is the kind of the attention's layers.
    """
    block, attention = f"{{{field}block}}", f"{{{field}attention}}"
    return (
        Rule(f"{official}{block}.in_layers.0", f"{ours}/{block}/norm_in", NORM),
        Rule(f"{official}{block}.in_layers.2", f"{ours}/{block}/conv_in", CONV),
        Rule(f"{official}{block}.emb_layers.1", f"{ours}/{block}/emb", DENSE),
        Rule(f"{official}{block}.out_layers.0", f"{ours}/{block}/norm_out", NORM),
        Rule(f"{official}{block}.out_layers.3", f"{ours}/{block}/conv_out", CONV),
        Rule(f"{official}{block}.skip_connection", f"{ours}/{block}/skip", CONV),
        Rule(f"{official}{attention}.norm", f"{ours}/{attention}/norm", NORM),
        Rule(f"{official}{attention}.qkv", f"{ours}/{attention}/qkv", pointwise),
        Rule(f"{official}{attention}.proj_out", f"{ours}/{attention}/proj", pointwise),
    )


def ends(official: str, ours: str, time: str = "time_embed") -> tuple[Rule, ...]:
    """The rules of what is at the two ends: the embedding of the time, the first convolution, the output."""
    return (
        Rule(f"{official}{time}.0", f"{ours}/time_in", DENSE),
        Rule(f"{official}{time}.2", f"{ours}/time_out", DENSE),
        Rule(f"{official}input_blocks.0.0", f"{ours}/conv_in", CONV),
        Rule(f"{official}out.0", f"{ours}/norm_out", NORM),
        Rule(f"{official}out.2", f"{ours}/conv_out", CONV),
    )


def unet_fields(size: int, unet: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The fields `block` and `attention` of all of a U-Net, from its section of the config."""
    levels = size, unet["mult"], unet["blocks"], unet["attention"]
    (down, down_attention), (up, up_attention) = way_down(*levels), way_up(*levels)
    return {"block": down | up, "attention": down_attention | up_attention}


def half_unet_fields(size: int, encoder: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The fields of HALF_UNET, from the encoder's section of the config."""
    blocks, attention = way_down(size, encoder["mult"], encoder["blocks"], encoder["attention"])
    return {"encoder_block": blocks, "encoder_attention": attention}


def way_down(size: int, mult: Sequence[int], blocks: int, attention: Sequence[int]) -> tuple[dict, dict]:
    """{official: ours} of the residual blocks and of the attention blocks, the middle included."""
    residual = {"middle_block.0": "middle_block0", "middle_block.2": "middle_block1"}
    attend = {"middle_block.1": "middle_attention"}
    for level in range(len(mult)):
        first = level * (blocks + 1)  # that of the level's resampling; for level 0 the first convolution
        if level > 0:
            residual[f"input_blocks.{first}.0"] = f"down{level}_resample"
        for i in range(blocks):
            residual[f"input_blocks.{first + 1 + i}.0"] = f"down{level}_block{i}"
            if size // 2**level in attention:
                attend[f"input_blocks.{first + 1 + i}.1"] = f"down{level}_attention{i}"
    return residual, attend


def way_up(size: int, mult: Sequence[int], blocks: int, attention: Sequence[int]) -> tuple[dict, dict]:
    """The same for the way up, which has one block more a level and resamples after the last one."""
    residual, attend = {}, {}
    for steps, level in enumerate(reversed(range(len(mult)))):
        attends = size // 2**level in attention
        for i in range(blocks + 1):
            number = steps * (blocks + 1) + i
            residual[f"output_blocks.{number}.0"] = f"up{level}_block{i}"
            if attends:
                attend[f"output_blocks.{number}.1"] = f"up{level}_attention{i}"
            if level > 0 and i == blocks:
                residual[f"output_blocks.{number}.{2 if attends else 1}"] = f"up{level}_resample"
    return residual, attend


def count(shapes: Mapping[str, Sequence[int]], module: str) -> int:
    """The number of entries of a numbered module."""
    depth = module.count(".") + 1
    return len({name.split(".")[depth] for name in shapes if name.startswith(f"{module}.")})
