"""`evaluate`'s look at the codes: TAD and ATTRS of what images have or lack, DCI of any labels."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.metrics import disentanglement as metrics
from diffrep_jax.tasks._codes import Codes

log = logging.getLogger(__name__)


def check(dataset: ImageDataset, images: int, wanted: Sequence[str]) -> None:
    """Raise UserError where a data set has neither attributes nor classes, or not those that are wanted, and for too
    few images of it.
    """
    names = dataset.attribute_names or dataset.class_names
    if not names:
        raise UserError(
            f"The data set '{dataset.name}' has no labels: {dataset.attributes_from} "
            "Or set tasks.evaluate.disentanglement_images=0."
        )
    for name in wanted:
        if name not in names:
            raise unknown("attribute", name, names, "tasks.evaluate.attributes")
    if images < metrics.FOLDS:
        raise UserError(
            f"The data set '{dataset.name}' has {images} training images, too few for TAD and DCI: give it "
            f"{metrics.FOLDS} or more, or set tasks.evaluate.disentanglement_images=0."
        )


def factors(
    codes: Codes, dataset: ImageDataset, wanted: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """What the codes are held against: (values [n, k], names, which of them are 0 or 1, bool [k]).

    Attributes, those of `wanted` or all; else the classes, one against the rest. UserError where there are neither, or
    names that are not there, or too few codes.
    """
    check(dataset, len(codes.codes), wanted)
    if codes.attributes is not None:
        values, names, binary = codes.attributes, codes.attribute_names, np.array(codes.binary)
    else:
        names = codes.class_names
        values, binary = np.eye(len(names))[codes.label], np.ones(len(names), bool)
    chosen = [names.index(name) for name in wanted or names]
    return values[:, chosen], tuple(names[i] for i in chosen), binary[chosen]


def measure(
    codes: np.ndarray, values: np.ndarray, names: Sequence[str], binary: np.ndarray, trees: int
) -> dict[str, Any]:
    """For metrics.json. trees: how many of the images DCI is measured on, its first ones; 0 for no DCI.

    TAD and ATTRS are of what images have or lack alone; DCI is of measures too.
    """
    report: dict[str, Any] = {"images": len(codes), "factors": list(names)}
    if binary.any():
        has, its_names = values[:, binary], [name for name, kept in zip(names, binary, strict=True) if kept]
        report |= metrics.tad_over_folds(codes, has)
        report["captured"] = [name for name, kept in zip(its_names, metrics.tad(codes, has)[1], strict=True) if kept]
        log.info("TAD %.4f, %.1f of %d attributes", report["tad"], report["attributes"], len(its_names))
    if trees:
        report["dci"] = _dci(codes[:trees], values[:trees], names, binary)
    return report


def _dci(codes: np.ndarray, values: np.ndarray, names: Sequence[str], binary: np.ndarray) -> dict[str, Any]:
    """On the first fold: trees grow on four fifths and are tried on the rest."""
    rows, rest = next(metrics.folds(len(codes)))
    importance, informed = metrics.importances(codes[rows], values[rows], codes[rest], values[rest], discrete=binary)
    separate, complete = metrics.dci(importance)
    log.info("DCI: disentanglement %.4f, completeness %.4f", separate, complete)
    finite = informed[np.isfinite(informed)]
    one_kind = binary.all() or not binary.any()
    measured_by = ["accuracy"] * bool(binary.any()) + ["r2"] * (not binary.all())
    return {
        "images": len(codes),
        "disentanglement": _or_none(separate),
        "completeness": _or_none(complete),
        "informativeness": float(np.mean(finite)) if len(finite) and one_kind else None,
        "measured_by": " or ".join(measured_by),
        "each": {name: _or_none(float(value)) for name, value in zip(names, informed, strict=True)},
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
