"""Images in an array of an .npz or .npy file, read one by one; nothing in it that would run code is looked at."""

import dataclasses
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from diffrep_jax.data import limits
from diffrep_jax.errors import UserError

USUAL_NAMES = ("images", "samples", "reconstructions")  # and guided-diffusion's, arr_0
MAX_IN_MEMORY = 1 << 31  # bytes of a compressed array


@dataclasses.dataclass(frozen=True)
class ImageArray:
    """uint8 [n, h, w, 1 or 3] in a file.

    member: its name in an .npz, None for an .npy. start: where in the file its pixels begin, None if compressed.
    """

    path: Path
    member: str | None
    shape: tuple[int, ...]
    start: int | None

    @property
    def image_size(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape[1:])

    def images(self) -> Iterator[np.ndarray]:
        """uint8 [h, w, c], one after the other. Raises UserError where the file is cut short or damaged."""
        number = 0
        try:
            with _stream(self.path, self.member) as stream:
                _header(stream)
                for number in range(self.shape[0]):
                    data = stream.read(self.image_size)
                    if len(data) != self.image_size:
                        raise UserError(f"{self.path} ends in image {number}; copy it again.")
                    yield np.frombuffer(data, np.uint8).reshape(self.shape[1:])
        except UserError:
            raise
        except Exception as error:  # zipfile's, zlib's and NumPy's own
            raise UserError(f"Image {number} of {self.path} cannot be read ({error}); copy it again.") from error


def open_array(path: Path, names: Sequence[str] = USUAL_NAMES) -> ImageArray:
    """The first of `names` that is in the file, or arr_0, as guided-diffusion and numpy.savez call it.

    Raises UserError where there is none, or the array has another type or shape.
    """
    try:
        members = _members(path)
        name = next((name for name in (*names, "arr_0") if name in members), None)
        if name is None and path.suffix == ".npy":
            name = path.stem
        if name is None:
            has = ", ".join(members) or "nothing"
            raise UserError(f"{path} holds {has}, none of {', '.join(names)}; rename its images.")
        with _stream(path, members[name]) as stream:
            shape, in_columns, dtype = _header(stream)
        start = _start(path, members[name])
    except UserError:
        raise
    except Exception as error:  # zipfile's, zlib's and NumPy's own, of which there are many
        raise UserError(f"{path} is no .npz file that can be read ({error}); write it again.") from error
    if not _are_images(shape, in_columns, dtype):
        raise UserError(f"'{name}' of {path} is {dtype} {shape}; images are uint8 [n, h, w, 1 or 3].")
    try:
        limits.check_pixels(shape[2], shape[1])
    except limits.TooLarge as error:
        raise UserError(f"Each image in '{name}' of {path} {error}; scale them down.") from None
    return ImageArray(path, members[name], shape, start)


def _are_images(shape: tuple[int, ...], in_columns: bool, dtype: np.dtype) -> bool:
    return dtype == np.uint8 and len(shape) == 4 and shape[-1] in (1, 3) and min(shape) > 0 and not in_columns


def _members(path: Path) -> dict[str, str | None]:
    """{name of an array: name of its file in the archive}; an .npy is one array without a name."""
    if path.suffix == ".npy":
        return {path.stem: None}
    with zipfile.ZipFile(path) as archive:
        return {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}


def _stream(path: Path, member: str | None) -> IO[bytes]:
    if member is None:
        return path.open("rb")
    # The archive is closed with the file that it gives; ZipFile counts who reads from it.
    with zipfile.ZipFile(path) as archive:
        return archive.open(member)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether columns come first, type) of an .npy file, which is read up to its data."""
    if np.lib.format.read_magic(stream) == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def _start(path: Path, member: str | None) -> int | None:
    """Where the pixels begin, where these are stored as they are."""
    with path.open("rb") as file:
        if member is not None:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo(member)
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                return None
            file.seek(info.header_offset + 26)  # of the two lengths at the end of the local header
            lengths = file.read(4)
            file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
        _header(file)
        return file.tell()
