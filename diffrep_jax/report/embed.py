"""Pictures inside a page: files as data URIs that fit a number of bytes together."""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Iterable

from PIL import Image

from diffrep_jax.errors import UserError

FORMATS = ("PNG", "GIF", "JPEG")  # others, such as EPS, run programs
JPEG_QUALITY = 88
SHRINK = 0.8  # of width and height, until a picture fits


@dataclasses.dataclass(frozen=True)
class Embedded:
    """width, height: of the picture inside; reduced: it is a JPEG of the file, of an animation the first image."""

    uri: str
    width: int
    height: int
    reduced: bool


def embed(paths: Iterable[pathlib.Path], total_bytes: int) -> dict[pathlib.Path, Embedded]:
    """The pictures, of at most `total_bytes` together. What the small ones leave is shared by the large ones."""
    by_size = sorted(set(paths), key=lambda path: (path.stat().st_size, path))
    embedded, left = {}, total_bytes
    for i, path in enumerate(by_size):
        data, kind, size = _within(path, left // (len(by_size) - i))
        left -= len(data)
        uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        embedded[path] = Embedded(uri, *size, reduced=kind == "jpeg")
    return embedded


def _within(path: pathlib.Path, most: int) -> tuple[bytes, str, tuple[int, int]]:
    """(bytes, kind, size) of the file itself, or of a JPEG of it that has no more than `most` bytes."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            data, kind, size = path.read_bytes(), (image.format or "").lower(), image.size
            if len(data) <= most:
                image.load()
                return data, kind, size
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read ({error}); run --task={path.parent.name} again.") from None
    while len(data) > most and min(picture.size) > 1:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
        data, size = buffer.getvalue(), picture.size
        picture = picture.resize((max(1, int(size[0] * SHRINK)), max(1, int(size[1] * SHRINK))))
    return data, "jpeg", size
