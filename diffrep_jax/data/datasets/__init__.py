"""One data set a file, known by the file's name, each ending in the symbol `Dataset`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from diffrep_jax.data.sources import Source


class ImageDataset(Protocol):
    """What every `Dataset` is; built as `Dataset(data_dir, split, image_size, channels, attributes)`, picklable."""

    splits: ClassVar[tuple[str, ...]]
    needs_data_dir: ClassVar[bool]
    attributes_from: ClassVar[str]  # the remedy where there are no attributes
    source: Source  # all of the data
    split: str
    class_names: tuple[str, ...]
    attribute_names: tuple[str, ...]  # empty unless they were asked for
    binary_attributes: bool  # whether all are 0 or 1, what an image has or lacks

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """{"image": uint8 [image_size, image_size, channels]}, and

        "label": int, where there are `class_names`;
        "attributes": float32 [k], where there are `attribute_names`.

        The image of `codes` is float32 as it stands. Raises BadEntry where the entry cannot be read.
        """
        ...

    def keep(self, workdir: Path) -> None:
        """Write what a run that is trained on these data has to keep of them; most write nothing."""
        ...
