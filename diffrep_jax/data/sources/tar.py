"""A source that is a tar of image files, read without unpacking it."""

import tarfile
from array import array
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from diffrep_jax.data import limits
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.names import is_image_name, natural_order
from diffrep_jax.data.sources import check_index, no_images, printable
from diffrep_jax.data.sources._positional import PositionalFile
from diffrep_jax.errors import UserError

PLAIN = (".tar",)
COMPRESSED = (".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_tar(name: str) -> bool:
    """Whether a file is named as a tar is, compressed or not."""
    return name.lower().endswith(PLAIN + COMPRESSED)


class TarSource:
    """The images in a tar, in the natural order of their paths (img2 before img10)."""

    kind: ClassVar[str] = "tar"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: Path):
        self.path = path
        if path.name.lower().endswith(COMPRESSED):
            raise UserError(
                f"'{path}' is compressed, so that no image in it can be read by itself: unpack it with 'tar -xf'."
            )
        try:
            with tarfile.open(path, "r:") as archive:
                members = [(m.name, m.offset_data, m.size) for m in archive if m.isreg() and not m.issparse()]
            self._file = PositionalFile(path)
        except Exception as error:  # tarfile's own, and those of damaged numbers and names
            raise UserError(f"'{path}' does not open as a tar ({error}): copy it again.") from error
        images = sorted((m for m in members if is_image_name(m[0])), key=lambda m: natural_order(m[0]))
        if not images:
            raise no_images(f"The tar '{path}'", [name for name, *_ in members])
        self._names = tuple(printable(name) for name, *_ in images)
        self._starts = array("Q", [start for _, start, _ in images])
        self._sizes = array("Q", [size for *_, size in images])

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return self._names[check_index(index, len(self), str(self.path))]

    def __getitem__(self, index: int) -> bytes:
        name = self.key(index)
        try:
            limits.check_bytes(self._sizes[index])
            return self._file.read(self._sizes[index], self._starts[index])
        except (ValueError, OSError) as error:
            raise BadEntry(f"'{name}' in '{self.path}' cannot be read ({error}): copy the tar again.") from error

    def fingerprint(self) -> str:
        return self._file.fingerprint()
