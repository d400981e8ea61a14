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


def factors(codes: Codes, dataset: ImageDataset, wanted: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...], bool]:
    """What the codes are held against: (values [n, k], names, whether all are 0 or 1).

    Attributes, those of `wanted` or all; else the classes, one against the rest. UserError where there are neither, or
    names that are not there.
    """
    if codes.attributes is None and codes.label is None:
        raise UserError(
            f"The data set '{dataset.name}' has no labels: {dataset.attributes_from} "
            "Or set tasks.evaluate.disentanglement_images=0."
        )
    binary = dataset.binary_attributes
    if codes.attributes is not None:
        values, names = codes.attributes, codes.attribute_names
    else:
        values, names, binary = np.eye(len(codes.class_names))[codes.label], codes.class_names, True
    check_names(names, wanted)
    chosen = [names.index(name) for name in wanted or names]
    return values[:, chosen], tuple(names[i] for i in chosen), binary


def check_names(names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise UserError for a wanted name that is none of these."""
    for name in wanted:
        if name not in names:
            raise unknown("attribute", name, names, "tasks.evaluate.attributes")


def measure(codes: np.ndarray, values: np.ndarray, names: Sequence[str], binary: bool, trees: int) -> dict[str, Any]:
    """For metrics.json. trees: how many of the images DCI is measured on, its first ones; 0 for no DCI."""
    report: dict[str, Any] = {"images": len(codes), "factors": list(names)}
    if binary:
        report |= metrics.tad_over_folds(codes, values)
        report["captured"] = [name for name, kept in zip(names, metrics.tad(codes, values)[1], strict=True) if kept]
        log.info("TAD %.4f, %.1f of %d attributes", report["tad"], report["attributes"], len(names))
    if trees:
        report["dci"] = _dci(codes[:trees], values[:trees], names, binary)
    return report


def _dci(codes: np.ndarray, values: np.ndarray, names: Sequence[str], binary: bool) -> dict[str, Any]:
    """On the first fold: trees grow on four fifths and are tried on the rest."""
    rows, rest = next(metrics.folds(len(codes)))
    importance, informed = metrics.importances(codes[rows], values[rows], codes[rest], values[rest], discrete=binary)
    separate, complete = metrics.dci(importance)
    log.info("DCI: disentanglement %.4f, completeness %.4f", separate, complete)
    finite = informed[np.isfinite(informed)]
    return {
        "images": len(codes),
        "disentanglement": _or_none(separate),
        "completeness": _or_none(complete),
        "informativeness": float(np.mean(finite)) if len(finite) else None,
        "measured_by": "accuracy" if binary else "r2",
        "each": {name: _or_none(float(value)) for name, value in zip(names, informed, strict=True)},
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
