"""One data set a file, found by the file's name, each ending in the symbol `Dataset`."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol


class ImageDataset(Protocol):
    """What every `Dataset` is; built as `Dataset(data_dir, split, image_size, channels)` and picklable."""

    splits: ClassVar[tuple[str, ...]]
    needs_data_dir: ClassVar[bool]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """{"image": uint8 [image_size, image_size, channels]}, and "label": int where there are classes."""
        ...
