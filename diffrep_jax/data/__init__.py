"""Data sets by name, and batches from them: images leave as NHWC in [-1, 1] under the key "image"."""

import os
from pathlib import Path

from diffrep_jax import discovery, paths
from diffrep_jax.data import bucket, datasets
from diffrep_jax.data.datasets import ImageDataset
from diffrep_jax.data.pipeline import Loading, Settings, ordered_batches, train_batches, view_batches
from diffrep_jax.errors import UserError, unknown

__all__ = [
    "ImageDataset",
    "Loading",
    "NoAttributes",
    "Settings",
    "dataset_names",
    "located",
    "open_dataset",
    "ordered_batches",
    "splits",
    "train_batches",
    "view_batches",
]

VARIABLE = "DIFFREP_DATA"  # of the environment: where data are, unless said otherwise


class NoAttributes(UserError):
    """A data set was asked for attributes and has none."""


def dataset_names() -> tuple[str, ...]:
    """The data sets that there are: the files of datasets/ that end in `Dataset = ...`."""
    return discovery.names(datasets.__name__, "Dataset")


def splits(name: str) -> tuple[str, ...]:
    """The splits of a data set that there is."""
    return discovery.load(datasets.__name__, name, "Dataset").splits


def located(path: str) -> Path:
    """The path on this machine, for an address in a bucket that of its copy; raises UserError as of `bucket.local`."""
    return bucket.local(path) if paths.is_address(path) else Path(path)


def open_dataset(
    name: str,
    *,
    split: str,
    image_size: int,
    channels: int,
    data_dir: str | os.PathLike | None = None,
    attributes: bool = False,
) -> ImageDataset:
    """The data set `name`, read at [image_size, image_size, channels].

    data_dir: what `sources.open_source` opens, or the files of `datasets/<name>.py`; when None, the environment
    variable DIFFREP_DATA. "~" and environment variables in it are replaced; gs://... is copied to this machine first.
    attributes: whether examples also have "attributes"; without it, files of attributes are not looked at.
    Raises UserError on an unknown name or split, and when there are no data where they should be; NoAttributes, which
    is one too, when there are no attributes.
    """
    if name not in dataset_names():
        raise unknown("data set", name, dataset_names())
    if data_dir is None and os.environ.get(VARIABLE):
        data_dir = paths.expanded(os.environ[VARIABLE], f"${VARIABLE}")
    directory = None if data_dir is None else located(paths.expanded(data_dir))
    dataset = discovery.load(datasets.__name__, name, "Dataset")(directory, split, image_size, channels, attributes)
    if attributes and not dataset.attribute_names:
        raise NoAttributes(f"The data set '{name}' has no attributes in '{directory}': {dataset.attributes_from}")
    return dataset
