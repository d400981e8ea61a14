"""Pictures in a notebook: rows of images under their names, and a slider over frames that are computed already."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]
from PIL import Image

from diffrep_jax.data.transforms import to_uint8


def show(rows: Mapping[str, np.ndarray], captions: Sequence[object] = (), height: int = 72) -> None:
    """Rows of images [n, h, w, c], uint8 or floats in [-1, 1], each under its name; captions: below the last row."""
    cell = f"display: inline-block; width: {height}px; margin: 1px; text-align: center"
    below = "".join(f'<span style="{cell}">{html.escape(str(caption))}</span>' for caption in captions)
    parts = [f"<div>{html.escape(name)}</div><div>{_strip(images, height)}</div>" for name, images in rows.items()]
    display(HTML(f'<div style="white-space: nowrap; overflow-x: auto">{"".join(parts)}{below}</div>'))


def slide(frames: np.ndarray, names: Sequence[object] = (), height: int = 216) -> None:
    """One of the images [n, h, w, c] at a time, by a slider that moves without Python."""
    figures = "".join(
        f"<figure style='margin: 0' {'hidden' if i else ''}>{_strip(frame[None], height)}"
        f"<figcaption>{html.escape(str(names[i])) if names else ''}</figcaption></figure>"
        for i, frame in enumerate(frames)
    )
    select = "this.parentNode.querySelectorAll('figure').forEach((figure, i) => { figure.hidden = i != this.value; })"
    slider = (
        f'<input type="range" min="0" max="{len(frames) - 1}" value="0" style="width: {height}px" oninput="{select}">'
    )
    display(HTML(f"<div>{slider}{figures}</div>"))


def _strip(images: np.ndarray, height: int) -> str:
    """<img> elements, side by side."""
    style = f"height: {height}px; margin: 1px; display: inline-block; image-rendering: pixelated"
    pixels = images if images.dtype == np.uint8 else to_uint8(images)
    return "".join(f'<img src="data:image/png;base64,{_png(image)}" style="{style}">' for image in pixels)


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
