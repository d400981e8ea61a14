"""A source that is a folder of image files, at any depth."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.sources import check_index, is_image_name, natural_order


class FolderSource:
    """The image files below `path`, in the natural order of their paths (img2 before img10).

    names: their paths below `path`, as `list_images` gives them.
    """

    kind: ClassVar[str] = "folder"
    splits: ClassVar[dict[str, range]] = {}

    def __init__(self, path: Path, names: Sequence[str]):
        self.path = path
        self._names = tuple(names)

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return self._names[check_index(index, len(self), str(self.path))]

    def __getitem__(self, index: int) -> bytes:
        name = self.key(index)
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise BadEntry(f"The file '{self.path / name}' cannot be read ({error.strerror}): put it back.") from error


def list_images(path: Path) -> list[str]:
    """The images below a folder as '/'-separated paths; links to folders are followed, each folder once."""
    found: list[str] = []
    entered = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        if (identity := os.path.realpath(folder)) in entered:
            subfolders.clear()
            continue
        entered.add(identity)
        below = Path(folder).relative_to(path).as_posix() if folder != str(path) else ""
        prefix = f"{below}/" if below else ""
        found += [name for file in files if is_image_name(name := prefix + file)]
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
    return sorted(found, key=natural_order)
