"""The sections of a method that are its networks' own arguments: their fields, types and what has to fit together."""

from collections.abc import Mapping
from typing import Annotated, Any

from flax import linen as nn

from diffrep_jax.errors import UserError
from diffrep_jax.fields import Section, Within
from diffrep_jax.methods.base import check_halvings

CodeSize = Annotated[int, Within(1, 2**20)]
ImageSize = Annotated[int, Within(1, 4096)]

# What networks are given by their method, or are by Flax; all else is the section's.
GIVEN = ("features", "channels", "image_size", "code_scales", "remat", "dtype", "parent", "name")


def network(module: type[nn.Module]) -> Section:
    """The section that has the arguments of a network."""
    return Section(module, without=GIVEN)


def check_levels(section: Mapping[str, Any], image_size: int, name: str) -> None:
    """Raise UserError where images cannot be halved from level to level, or heads do not divide the channels."""
    mult, place = section["mult"], f"config.method.{name}"
    check_halvings(image_size, len(mult) - 1, f"the {len(mult)} levels of {place}.mult")
    sizes = [image_size >> level for level in range(len(mult))]
    channels = {section["width"] * m for m, size in zip(mult, sizes, strict=True) if size in section["attention"]}
    for count in sorted(channels | {section["width"] * mult[-1]}):
        head_dim = section.get("head_dim", -1)
        heads = section.get("heads", 1) if head_dim == -1 else max(1, count // head_dim)
        _check_heads(count, heads, f"{place}.{'heads' if head_dim == -1 else 'head_dim'}")


def check_convolutions(section: Mapping[str, Any], image_size: int) -> None:
    """The same for an encoder of strided convolutions."""
    widths, place = section["widths"], "config.method.encoder"
    check_halvings(image_size, len(widths), f"the {len(widths)} convolutions of {place}.widths")
    for i, width in enumerate(widths):
        if image_size >> (i + 1) in section["attention"]:
            _check_heads(width, section["heads"], f"{place}.heads")


def _check_heads(channels: int, heads: int, place: str) -> None:
    if channels % heads:
        raise UserError(f"{place}: {channels} channels do not divide among {heads} heads; choose another number.")
