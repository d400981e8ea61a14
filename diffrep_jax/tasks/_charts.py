"""Line charts as pictures, drawn with Pillow: for tasks whose result is a curve."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffrep_jax.report.charts import Axis
from diffrep_jax.report.values import number

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 34, 44
COLOURS = ("#1f5fa8", "#c2541b", "#2b8a4b", "#8a3fa0", "#8a6d1b", "#4d4d4d", "#1a9ba1", "#d1478c")
FONT_SIZE = 13

Line = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Line], x_name: str, y_name: str, log_y: bool = False, log_x: bool = False
) -> np.ndarray:
    """{name: its points (x, y), in order} -> an RGB picture [H, W, 3]; points that are not finite are left out.

    log_y, log_x: logarithmic axes, where all values are above 0.
    """
    lines = {name: [point for point in line if np.isfinite(point).all()] for name, line in lines.items()}
    points = [point for line in lines.values() for point in line] or [(0.0, 0.0)]
    font = ImageFont.load_default(FONT_SIZE)
    legend, height = _legend([font.getlength(name) for name in lines], WIDTH - RIGHT - font.getlength(y_name) - 20)
    bottom, top = HEIGHT - BOTTOM, TOP + height
    x_axis = Axis([float(x) for x, _ in points], LEFT, WIDTH - RIGHT, log_x)
    y_axis = Axis([float(y) for _, y in points], bottom, top, log_y)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for value in y_axis.ticks():
        y = y_axis(value)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill="#dddddd")
        draw.text((LEFT - 6, y), number(value), fill="black", font=font, anchor="rm")
    for value in x_axis.ticks():
        x = x_axis(value)
        draw.line([(x, top), (x, bottom)], fill="#eeeeee")
        draw.text((x, bottom + 6), number(value), fill="black", font=font, anchor="ma")
    draw.text((WIDTH / 2, HEIGHT - 6), x_name, fill="black", font=font, anchor="ms")
    draw.text((6, 6), y_name, fill="black", font=font, anchor="la")
    for i, (name, line) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        places = [(x_axis(x), y_axis(y)) for x, y in line]
        if len(places) > 1:
            draw.line(places, fill=colour, width=2)
        for x, y in places:
            draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=colour)
        left, middle = legend[i]
        draw.ellipse([left, middle - 4, left + 8, middle + 4], fill=colour)
        draw.text((left + 12, middle), name, fill="black", font=font, anchor="lm")
    return np.asarray(image)


def _legend(lengths: Sequence[float], width: float) -> tuple[list[tuple[int, int]], int]:
    """(where each entry begins, in rows from the right end to the left; by how much the rows after the first lower the
    chart), for names so long in pixels."""
    places: list[tuple[int, int]] = []
    right, row = WIDTH - RIGHT, 0
    for length in lengths:
        entry = int(length) + 22
        if right - entry < WIDTH - RIGHT - width and places:
            right, row = WIDTH - RIGHT, row + 1
        right -= entry
        places.append((right, 15 + row * (FONT_SIZE + 5)))
    return places, row * (FONT_SIZE + 5)
