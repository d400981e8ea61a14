"""A source that is a data set prepared by TFDS as array_record files; TensorFlow is not needed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.fingerprint import of_files
from diffrep_jax.data.sources import check_index, natural_order
from diffrep_jax.data.text_files import read_text
from diffrep_jax.errors import UserError

_ORDER = ("train", "validation", "test")
OWN_FEATURES = "tensorflow_datasets.core.features."


def is_prepared(path: Path) -> bool:
    """Whether `path` is the folder of one version of a prepared data set."""
    return (path / "dataset_info.json").is_file() and (path / "features.json").is_file()


def prepared_below(path: Path) -> list[Path]:
    """The data sets in a TFDS data directory (<name>/[<config>/]<version>), of each the newest version."""
    newest: dict[Path, Path] = {}
    infos = [info for depth in ("*", "*/*", "*/*/*") for info in path.glob(f"{depth}/dataset_info.json")]
    for version in sorted((info.parent for info in infos), key=lambda p: natural_order(str(p))):
        if is_prepared(version):
            newest[version.parent] = version
    return list(newest.values())


class TfdsSource:
    """The images of all splits of a prepared data set: train, validation, test, then others by name.

    path: <data_dir>/<name>/[<config>/]<version>. The image is the feature "image", else the only image there is.
    """

    kind: ClassVar[str] = "tfds"

    def __init__(self, path: Path):
        import tensorflow_datasets as tfds

        self.path = path
        _refuse_other_modules(path / "features.json")
        try:
            builder: Any = tfds.builder_from_directory(path)
            form = builder.info.file_format
        except Exception as error:  # TFDS's, protobuf's, and those of any number that is damaged
            raise UserError(f"The TFDS data set '{path}' does not open ({error}): prepare it again.") from error
        if form != tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"The TFDS data set '{path}' has the format {form.value if form else 'unknown'}: prepare it again "
                "with file_format='array_record'."
            )
        self._feature = self._image_feature(builder.info.features)
        self._read_labels(builder.info.features)
        names = [split for split in builder.info.splits if builder.info.splits[split].num_examples]
        names.sort(key=lambda s: (_ORDER.index(s) if s in _ORDER else len(_ORDER), s))
        decoders = {self._feature: tfds.decode.SkipDecoding()}
        self.splits: dict[str, range] = {}
        start = 0
        try:
            self._parts = {name: builder.as_data_source(split=name, decoders=decoders) for name in names}
            for name, part in self._parts.items():
                self.splits[name] = range(start, start + len(part))
                start += len(part)
        except Exception as error:  # array_record's
            raise UserError(
                f"The TFDS data set '{path}' has files that do not open ({error}): copy it again."
            ) from error
        self._count = start

    def _image_feature(self, features: Mapping[str, Any]) -> str:
        import tensorflow_datasets as tfds

        images = sorted(name for name, feature in features.items() if isinstance(feature, tfds.features.Image))
        if "image" in images or len(images) == 1:
            return "image" if "image" in images else images[0]
        raise UserError(f"The TFDS data set '{self.path}' has the images {images}, not one 'image': use another.")

    def _read_labels(self, features: Mapping[str, Any]) -> None:
        """As data sets of TFDS have them: the class in "label", the dictionary "attributes"."""
        import tensorflow_datasets as tfds

        label, attributes = (features[name] if name in features else None for name in ("label", "attributes"))
        self.class_names = tuple(label.names or ()) if isinstance(label, tfds.features.ClassLabel) else ()
        known: dict[str, Any] = dict(attributes.items()) if isinstance(attributes, tfds.features.FeaturesDict) else {}
        # The file has no order; by name is how CelebA has its own.
        self.attribute_names = tuple(name for name in sorted(known) if known[name].shape == ())
        self.binary_attributes = tuple(np.issubdtype(known[n].np_dtype, np.bool_) for n in self.attribute_names)

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> str:
        split, position = self._locate(index)
        return f"{split}-{position}"

    def __getitem__(self, index: int) -> bytes:
        return self._example(index)[self._feature]

    def fingerprint(self) -> str:
        return of_files(self.path, sorted(file.name for file in self.path.iterdir() if file.is_file()))

    def labels(self, index: int) -> tuple[int | None, list[float]]:
        """The number of the class, if there are classes, and the values of `attribute_names`."""
        example = self._example(index)
        label = int(example["label"]) if self.class_names else None
        return label, [float(example["attributes"][name]) for name in self.attribute_names]

    def _locate(self, index: int) -> tuple[str, int]:
        index = check_index(index, len(self), str(self.path))
        return next((name, index - span.start) for name, span in self.splits.items() if index in span)

    def _example(self, index: int) -> dict[str, Any]:
        split, position = self._locate(index)
        try:
            return self._parts[split][position]
        except Exception as error:  # array_record's and protobuf's own
            raise BadEntry(
                f"Entry '{split}-{position}' of '{self.path}' cannot be read ({error}): prepare it again."
            ) from error


def _refuse_other_modules(file: Path) -> None:
    """TFDS imports whatever Python module a features.json names; ours are to name none but TFDS's own features."""
    try:
        waiting = [json.loads(read_text(file))]
    except (ValueError, RecursionError) as error:
        raise UserError(f"'{file}' is no list of features ({error}): prepare the data set again.") from error
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            for name in (value.get("pythonClassName"), value.get("python_class_name"), _legacy_type(value)):
                if name is not None and not str(name).startswith(OWN_FEATURES):
                    raise UserError(
                        f"'{file}' names the Python class '{name}', which is not one of TFDS's features: nothing is "
                        "imported; prepare the data set with features of TFDS alone."
                    )


def _legacy_type(value: dict[str, Any]) -> Any:
    """The class that the old form names, {"type": class, "content": ...}."""
    return value.get("type") if "content" in value else None
