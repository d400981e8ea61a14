"""The most that one image may be: what says that it is more is a bad entry, before it is read or decoded."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """The config's data.max_pixels and data.max_bytes."""

    pixels: int = 1 << 27  # 11,585 x 11,585; decoding takes about 7 bytes each
    bytes: int = 1 << 30


_used = [Limits()]  # by this process, whoever reads images in it


def used() -> Limits:
    return _used[0]


def use(limits: Limits) -> None:
    """From now on, in this process."""
    _used[0] = limits


def check_bytes(size: int) -> None:
    """Raises ValueError for an image of more bytes, before they are read."""
    if size > used().bytes:
        raise ValueError(f"it has {size:,} bytes, more than the {used().bytes:,} of config.data.max_bytes")


def check_pixels(width: int, height: int) -> None:
    """Raises TooLarge for an image of more pixels, before they are decoded."""
    if width * height > used().pixels:
        raise TooLarge(
            f"says that it has {width:,} x {height:,} pixels, more than the {used().pixels:,} of config.data.max_pixels"
        )


class TooLarge(ValueError):
    """An image says in its header that it has too many pixels."""
