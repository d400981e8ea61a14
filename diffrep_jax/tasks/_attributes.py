"""Attributes by name or number, of codes or of a data set: its attributes, then its classes, one against the rest.

A class that is named like an attribute is called "NAME (class)".
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.tasks._codes import Codes


def names(labelled: Codes | ImageDataset) -> list[str]:
    """Attributes, then classes; UserError where there are neither."""
    attributes = labelled.attribute_names
    every = [*attributes, *(f"{name} (class)" if name in attributes else name for name in labelled.class_names)]
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


def place(labelled: Codes | ImageDataset, name: str) -> tuple[bool, int]:
    """(Whether it is a class, its number among the classes, or among the attributes.)"""
    number, count = names(labelled).index(name), len(labelled.attribute_names)
    return (True, number - count) if number >= count else (False, number)


def values(codes: Codes, name: str) -> np.ndarray:
    """[n]; of a class 1 or 0."""
    is_class, number = place(codes, name)
    attributes: Any = codes.attributes
    return (codes.label == number if is_class else attributes[:, number]).astype(np.float32)


def check_varies(dataset: ImageDataset, name: str) -> None:
    """Raise UserError where all images are the same in it: there is no direction to learn."""
    is_class, number = place(dataset, name)
    seen = set()
    for row in range(len(dataset)):
        labels = dataset.labels_of(row)
        seen.add(labels["label"] == number if is_class else float(labels["attributes"][number]))
        if len(seen) > 1:
            return
    raise UserError(
        f"tasks.manipulate.attribute: '{name}' is the same for all {len(dataset)} training images of "
        f"'{dataset.name}', so there is no direction to learn; name another one, or give more images."
    )


def is_binary(labelled: Codes | ImageDataset, name: str) -> bool:
    """Whether it is a class, or an attribute that an image has or lacks."""
    flags = labelled.binary if isinstance(labelled, Codes) else labelled.binary_attributes
    return dict(zip(labelled.attribute_names, flags, strict=True)).get(name, True)
