"""What has to be the same in all processes of a run on many hosts before they train together."""

import hashlib
import importlib.metadata
from typing import Any

import numpy as np

from diffrep_jax.data import ImageDataset
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.runs.layout import Run

LIBRARIES = ("diffrep_jax", "jax", "flax", "optax")
SAMPLED = 16  # images, evenly over the data set, that stand for its content


def facts(run: Run, dataset: ImageDataset, start: int) -> dict[str, Any]:
    """{what: a JSON value}: each value of the config, the libraries' versions, the data and the step to start from."""
    versions = {f"the version of {name}": _version(name) for name in LIBRARIES}
    data = {"the number of images": len(dataset), "the digest of images": content(dataset)}
    here = {"--workdir": str(run.folder), "the newest checkpoint": start}
    return _flat(run.config.to_dict(), "config.") | here | versions | data


def content(dataset: ImageDataset) -> str:
    """A digest of some of the images, as they are read, and of their labels."""
    digest = hashlib.sha256()
    for index in np.unique(np.linspace(0, len(dataset) - 1, SAMPLED).round().astype(int)):
        try:
            example = dataset[int(index)]
        except BadEntry:
            continue
        for name in sorted(example):
            digest.update(name.encode() + np.ascontiguousarray(example[name]).tobytes())
    return digest.hexdigest()[:16]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        return "unknown"


def _flat(value: Any, prefix: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {name: item for key, inner in value.items() for name, item in _flat(inner, f"{prefix}{key}.").items()}
