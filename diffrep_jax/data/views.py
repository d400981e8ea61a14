"""Two random views of an image for self-supervised losses: SimCLR's augmentations (Chen et al. 2020, appendix A).

Flip, colour jitter, grey and blur with the published strengths; SimSiam has half the jitter. Their random crop is left
out: a view is to show the whole image, since it is the representation of the whole image that the loss is about.
"""

from typing import Any

import numpy as np

FLIP = 0.5  # probabilities
JITTER = 0.8
GREY = 0.2
BLUR = 0.5
BRIGHTNESS = CONTRAST = SATURATION = 0.8  # a factor in [1 - s, 1 + s], at strength 1
HUE = 0.2  # a turn in [-s, s] of the colour circle
SIGMA = (0.1, 2.0)  # of the blur, in pixels


def two_views(example: dict[str, Any], rng: np.random.Generator, strength: float = 1.0) -> dict[str, Any]:
    """The example with "view1" and "view2", uint8 [h, w, c], in place of "image"; `strength` is the jitter's."""
    image = example["image"]
    return _with_views(example, view(image, rng, strength), view(image, rng, strength))


def twice(example: dict[str, Any]) -> dict[str, Any]:
    """The same with the image itself as both views."""
    return _with_views(example, example["image"], example["image"])


def _with_views(example: dict[str, Any], view1: np.ndarray, view2: np.ndarray) -> dict[str, Any]:
    others = {key: value for key, value in example.items() if key != "image"}
    return {**others, "view1": view1, "view2": view2}


def view(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """uint8 [h, w, c] -> one random view of it, [h, w, c]. With one channel only light and blur change."""
    from PIL import Image, ImageFilter

    picture = Image.fromarray(image[:, :, 0] if image.shape[-1] == 1 else image)
    if rng.random() < FLIP:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < JITTER:
        picture = jitter(picture, rng, strength)
    if rng.random() < GREY:
        picture = picture.convert("L").convert(picture.mode)
    if rng.random() < BLUR:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(*SIGMA)))
    return np.asarray(picture).reshape(image.shape)


def jitter(picture: Any, rng: np.random.Generator, strength: float = 1.0) -> Any:
    """A Pillow image with brightness, contrast, saturation and hue changed, in a random order.

    strength: in [0, 1], of all four ranges: s in the papers.
    """
    from PIL import ImageEnhance

    def enhance(kind: Any, width: float) -> Any:
        factor = rng.uniform(1 - strength * width, 1 + strength * width)
        return lambda image: kind(image).enhance(factor)

    turn = strength * rng.uniform(-HUE, HUE)
    steps = [
        enhance(ImageEnhance.Brightness, BRIGHTNESS),
        enhance(ImageEnhance.Contrast, CONTRAST),
        enhance(ImageEnhance.Color, SATURATION),
        lambda image: turn_hue(image, turn),
    ]
    for step in rng.permutation(len(steps)):
        picture = steps[step](picture)
    return picture


def turn_hue(picture: Any, turn: float) -> Any:
    """A Pillow image with all hues moved by `turn` of the colour circle; grey images have none."""
    from PIL import Image

    if picture.mode == "L":
        return picture
    hue, saturation, value = picture.convert("HSV").split()
    moved = (np.asarray(hue, np.int16) + round(turn * 256)) % 256
    return Image.merge("HSV", (Image.fromarray(moved.astype(np.uint8)), saturation, value)).convert("RGB")
