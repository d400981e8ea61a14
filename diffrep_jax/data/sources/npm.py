"""A source that is some of the image files of an npm package, a compressed tar, held in memory as they are."""

import gzip
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from diffrep_jax.data.fingerprint import digest
from diffrep_jax.data.sources import check_index
from diffrep_jax.errors import UserError

MAX_BYTES = 1 << 28  # of all files that are kept


class NpmSource:
    """files: those of `path` that are images, by the names that are their keys; see `read_package`."""

    kind: ClassVar[str] = "npm"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: Path, files: Mapping[str, bytes], names: Sequence[str]):
        self.path = path
        self._names = tuple(names)
        self._files = [files[name] for name in names]

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        return self._names[check_index(index, len(self), str(self.path))]

    def __getitem__(self, index: int) -> bytes:
        return self._files[check_index(index, len(self), str(self.path))]

    def fingerprint(self) -> str:
        return digest(*self._names, *self._files)


def read_package(path: Path, table: str, folder: str) -> dict[str, bytes]:
    """The file `table` of a package, and those that lie in its `folder`, by their names without it."""
    kept: dict[str, bytes] = {}
    try:
        with gzip.open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                inside = member.name.partition("/")[2]  # npm's own folder, package/, lies around all
                name = inside if inside == table else inside.removeprefix(f"{folder}/")
                if not member.isreg() or "/" in name or (name == inside and inside != table):
                    continue
                if sum(map(len, kept.values()), member.size) > MAX_BYTES:
                    raise UserError(f"'{path}' unpacks to more than {MAX_BYTES:,} bytes: pack it again.")
                content = archive.extractfile(member)
                kept[name] = content.read() if content else b""
    except UserError:
        raise
    except Exception as error:  # tarfile's, zlib's, and those of damaged numbers and names
        raise UserError(f"'{path}' does not unpack ({error}): pack it again.") from error
    return kept
