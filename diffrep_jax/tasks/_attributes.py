"""Attributes by name or number, of codes or of a data set: its attributes, then its classes, one against the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.tasks._codes import Codes


def names(labelled: Codes | ImageDataset) -> list[str]:
    """Attributes, then classes; UserError where there are neither."""
    every = [*labelled.attribute_names, *labelled.class_names]
    if not every:
        raise UserError("The data set has no labels to learn from; set tasks.manipulate.dataset to one that has.")
    return every


def wanted(every: Sequence[str], text: str) -> dict[str, int]:
    """{name: 1, or -1 where it stands with a minus} of "Smiling,-Male".

    Raises UserError for a name that there is not, or that stands there twice.
    """
    signs: dict[str, int] = {}
    for part in [text] if text in every else text.split(","):
        name, sign = _signed(every, part.strip())
        if name in signs:
            raise UserError(f"tasks.manipulate.attribute={text} has '{name}' twice; name each attribute once.")
        signs[name] = sign
    return signs


def _signed(every: Sequence[str], text: str) -> tuple[str, int]:
    sign = -1 if text.startswith("-") and text not in every else 1
    name = text[1:] if sign < 0 else text
    if name not in every and name.isdecimal() and int(name) < len(every):
        return every[int(name)], sign
    if name not in every:
        raise unknown("attribute", name, every, "tasks.manipulate.attribute")
    return name, sign


def values(codes: Codes, name: str) -> np.ndarray:
    """[n]; of a class 1 or 0."""
    number = names(codes).index(name)
    attributes: Any = codes.attributes
    if number < len(codes.attribute_names):
        return attributes[:, number].astype(np.float32)
    return np.asarray(codes.label == number - len(codes.attribute_names), np.float32)


def is_binary(labelled: Codes | ImageDataset, name: str) -> bool:
    """Whether it is a class, or an attribute that an image has or lacks."""
    flags = labelled.binary if isinstance(labelled, Codes) else labelled.binary_attributes
    return dict(zip(labelled.attribute_names, flags, strict=True)).get(name, True)
