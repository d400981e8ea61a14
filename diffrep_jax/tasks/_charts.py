"""Line charts as pictures, drawn with Pillow: for tasks whose result is a curve."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffrep_jax.report.charts import Axis
from diffrep_jax.report.values import number

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 34, 44
COLOURS = ("#1f5fa8", "#c2541b", "#2b8a4b", "#8a3fa0", "#8a6d1b", "#4d4d4d")
FONT_SIZE = 13

Line = Sequence[tuple[float, float]]


def line_chart(lines: Mapping[str, Line], x_name: str, y_name: str, log_y: bool = False) -> np.ndarray:
    """{name: its points (x, y), in order} -> an RGB picture [H, W, 3]; points that are not finite are left out.

    log_y: a logarithmic axis, where all values are above 0.
    """
    lines = {name: [point for point in line if np.isfinite(point).all()] for name, line in lines.items()}
    points = [point for line in lines.values() for point in line] or [(0.0, 0.0)]
    x_axis = Axis([float(x) for x, _ in points], LEFT, WIDTH - RIGHT, False)
    y_axis = Axis([float(y) for _, y in points], HEIGHT - BOTTOM, TOP, log_y)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for value in y_axis.ticks():
        y = y_axis(value)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill="#dddddd")
        draw.text((LEFT - 6, y), number(value), fill="black", font=font, anchor="rm")
    for value in x_axis.ticks():
        x = x_axis(value)
        draw.line([(x, TOP), (x, HEIGHT - BOTTOM)], fill="#eeeeee")
        draw.text((x, HEIGHT - BOTTOM + 6), number(value), fill="black", font=font, anchor="ma")
    draw.text((WIDTH / 2, HEIGHT - 6), x_name, fill="black", font=font, anchor="ms")
    draw.text((6, 6), y_name, fill="black", font=font, anchor="la")
    legend = WIDTH - RIGHT
    for i, (name, line) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        places = [(x_axis(x), y_axis(y)) for x, y in line]
        if len(places) > 1:
            draw.line(places, fill=colour, width=2)
        for x, y in places:
            draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=colour)
        legend -= int(font.getlength(name)) + 22
        draw.ellipse([legend, 11, legend + 8, 19], fill=colour)
        draw.text((legend + 12, 15), name, fill="black", font=font, anchor="lm")
    return np.asarray(image)
