"""One data set a file, known by the file's name, each ending in the symbol `Dataset`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from diffrep_jax.data.sources import Source


class ImageDataset(Protocol):
    """What every `Dataset` is; built as `Dataset(data_dir, split, image_size, channels, attributes)`, picklable."""

    splits: ClassVar[tuple[str, ...]]
    needs_data_dir: ClassVar[bool]
    attributes_from: ClassVar[str]  # the remedy where there are no attributes
    source: Source  # all of the data
    split: str
    name: ClassVar[str]
    entries: Sequence[int]  # of each image, its number in the source

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Empty unless they were asked for."""
        ...

    @property
    def binary_attributes(self) -> tuple[bool, ...]:
        """For each attribute, whether it is 0 or 1, what an image has or lacks; else it is a measure."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """{"image": uint8 [image_size, image_size, channels]}, and

        "label": int, where there are `class_names`;
        "attributes": float32 [k], where there are `attribute_names`.

        The image of `codes` is float32 as it stands. Raises BadEntry where the entry cannot be read.
        """
        ...

    def labels_of(self, index: int, /) -> Mapping[str, Any]:
        """An example without its image, which is not read: "label" and "attributes", those that there are."""
        ...

    def fingerprint(self) -> str:
        """What tells these images, in this order, from others, also from others of the same names."""
        ...

    @property
    def statistics(self) -> Mapping[str, Any]:
        """What a method that is trained on these data keeps of them as a whole, arrays by name; nothing of images."""
        ...
