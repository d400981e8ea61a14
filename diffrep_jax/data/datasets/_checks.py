"""What every data set refuses before it looks at its data."""

from numbers import Integral

from diffrep_jax.errors import UserError, unknown

IMAGE_SIZES = range(4, 4097)


def check_request(name: str, splits: tuple[str, ...], split: str, image_size: int, channels: int) -> None:
    """Raises UserError on an unknown split and on a size or a number of channels out of range."""
    if split not in splits:
        raise unknown("split", split, splits, place=f"data set '{name}'")
    if not isinstance(image_size, Integral) or image_size not in IMAGE_SIZES:
        raise UserError(
            f"data.image_size is {image_size}: use a whole number from {IMAGE_SIZES[0]} to {IMAGE_SIZES[-1]}."
        )
    if channels not in (1, 3):
        raise UserError(f"data.channels is {channels}: use 1 (grey) or 3 (colour).")
