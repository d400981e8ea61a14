"""A source that is an LMDB of encoded images: in the layout of the DiffAE project, or with any keys of its own."""

import itertools
import logging
import os
import re
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Protocol

from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import is_image
from diffrep_jax.data.names import IMAGE_SUFFIXES, natural_order, suffix
from diffrep_jax.data.sources import check_index
from diffrep_jax.data.sources._lmdb_file import LmdbFile
from diffrep_jax.errors import UserError

log = logging.getLogger(__name__)

LENGTH = b"length"
NUMBERED = re.compile(rb"(.*-)(\d{1,19})", re.DOTALL)  # <prefix>-<digits>
HASH = re.compile(rb"[0-9a-fA-F]{16,}")
DIGITS = re.compile(rb"\d+")
SAMPLE = 4  # values of each kind of key that are looked at


class LmdbSource:
    """The encoded images of an LMDB.

    With keys `<prefix>-<digits>`, in the order of their numbers: prefix, digits and first number come from the first
    key, the count from the entry `length` (text), else from the number of entries; no scan. With other keys, those of
    LSUN for one, in natural order: they are listed once, and each kind of key is one of images if its values are.

    path: a directory with data.mdb, or a single-file LMDB.
    """

    kind: ClassVar[str] = "lmdb"
    splits: Mapping[str, range] = MappingProxyType({})

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        data_file = self.path / "data.mdb" if self.path.is_dir() else self.path
        if not data_file.is_file():
            what = "is not an LMDB: it has no data.mdb" if self.path.is_dir() else "does not exist"
            raise UserError(f"'{self.path}' {what}. Name a directory with data.mdb in it, or an LMDB file.")
        try:
            self._file = LmdbFile(data_file)
            _refuse_truncated(self._file, data_file)
            self._keys = self._numbered() or self._listed()
        except (ValueError, OSError) as error:
            raise UserError(
                f"'{data_file}' is no image, zip, tar or npz by its name, and does not open as an LMDB ({error}): is "
                "it one, complete and readable?"
            ) from error

    def _numbered(self) -> "_Numbered | None":
        """The keys of DiffAE's layout, None where they are others. Raises UserError where `length` is wrong."""
        first = next((key for key in itertools.islice(self._file.keys(), 2) if key != LENGTH), None)
        if first is None:
            raise UserError(f"The LMDB '{self.path}' is empty: write it again.")
        layout = NUMBERED.fullmatch(first)
        length = self._file.get(LENGTH)
        if layout is None or not (length is None or length.isdigit()):
            return None
        count = self._file.entries if length is None else int(length[:19])
        if count < 1:
            raise UserError(
                f"The LMDB '{self.path}' has the text {_text(length or b'')!r} under 'length': "
                "write the number of its images there."
            )
        keys = _Numbered(layout[1], len(layout[2]), int(layout[2]), count)
        if self._file.get(keys[count - 1]) is not None:
            if length is not None or keys.includes(next(self._file.keys(backwards=True))):
                return keys
        if length is None:
            return None  # there are gaps, or entries of other kinds
        raise UserError(
            f"The LMDB '{self.path}' says that it has {count} images, but has no key '{_text(keys[count - 1])}' (its "
            f"first is '{_text(first)}'): it is incomplete or its 'length' is wrong; write it again."
        )

    def _listed(self) -> "_Listed":
        """All keys of the kinds whose values are images. Raises UserError where there are none."""
        keys, kinds = _Listed(), array("I")
        number_of: dict[bytes, int] = {}  # of each kind
        samples: list[list[int]] = []
        for position, key in enumerate(self._file.keys()):
            number = number_of.setdefault(_kind(key), len(samples))
            if number == len(samples):
                samples.append([])
            if len(samples[number]) < SAMPLE:
                samples[number].append(position)
            keys.append(key)
            kinds.append(number)
        of_images = [any(is_image(self._file.get(keys[i]) or b"") for i in sample) for sample in samples]
        chosen = [position for position, number in enumerate(kinds) if of_images[number]]
        shown = ", ".join(repr(_text(keys[sample[0]])) for sample in samples[:3])
        if not chosen:
            raise UserError(
                f"The LMDB '{self.path}' has keys such as {shown}, and no value that was looked at is an encoded "
                "image: give an LMDB of JPEG, PNG or WebP files."
            )
        names = [name for name, number in number_of.items() if of_images[number]]
        sizes = [name for name in names if re.fullmatch(rb"\d+-#", name)]
        if len(sizes) > 1:
            listed = ", ".join(map(_text, sizes))
            raise UserError(f"The LMDB '{self.path}' has each image in more than one size, {listed}: keep one of them.")
        if len(chosen) < len(keys):
            log.info(
                "'%s': %d of its %d entries are images, the others are ignored.", self.path, len(chosen), len(keys)
            )
        if len({len(keys[i]) for i in chosen}) > 1:  # else the file's order is the natural one
            chosen.sort(key=lambda i: natural_order(_text(keys[i])))
        return _Listed(keys[i] for i in chosen)

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return _text(self._keys[check_index(index, len(self), str(self.path))])

    def __getitem__(self, index: int) -> bytes:
        key = self._keys[check_index(index, len(self), str(self.path))]
        try:
            value = self._file.get(key)
        except (ValueError, OSError) as error:
            raise BadEntry(
                f"The key '{_text(key)}' of '{self.path}' cannot be read ({error}): copy it again."
            ) from error
        if value is None:
            raise BadEntry(f"The LMDB '{self.path}' has no key '{_text(key)}': it is incomplete; write it again.")
        return value

    def fingerprint(self) -> str:
        return self._file.fingerprint()


class _Keys(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> bytes: ...


class _Numbered:
    """<prefix><number>, the number with at least so many digits."""

    def __init__(self, prefix: bytes, digits: int, first: int, count: int):
        self._prefix, self._digits, self._first, self._count = prefix, digits, first, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> bytes:
        return self._prefix + str(self._first + index).zfill(self._digits).encode()

    def includes(self, key: bytes) -> bool:
        layout = NUMBERED.fullmatch(key)
        return bool(layout) and layout[1] == self._prefix and 0 <= int(layout[2]) - self._first < self._count


class _Listed:
    """Keys one after the other in one piece of memory: LSUN has millions."""

    def __init__(self, keys: Iterable[bytes] = ()):
        self._joined, self._ends = bytearray(), array("Q", [0])
        for key in keys:
            self.append(key)

    def append(self, key: bytes) -> None:
        self._joined += key
        self._ends.append(len(self._joined))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._joined[self._ends[index] : self._ends[index + 1]])


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _kind(key: bytes) -> bytes:
    """What keys that name the same sort of thing have in common."""
    if HASH.fullmatch(key):
        return b"(hash)"
    if layout := NUMBERED.fullmatch(key):
        return layout[1] + b"#"
    end = suffix(_text(key))
    return b"*" + end.encode() if end in IMAGE_SUFFIXES else DIGITS.sub(b"#", key)


def _refuse_truncated(file: LmdbFile, path: Path) -> None:
    """A file from which the last entries were deleted may be short and whole: hence the second remedy."""
    if file.size < file.needed:
        raise UserError(
            f"'{os.path.realpath(path)}' is cut short: {file.size} bytes of {file.needed}. Copy it again, "
            "or, if entries were deleted from it, compact it with 'mdb_copy -c'."
        )
