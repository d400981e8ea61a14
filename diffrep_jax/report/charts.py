"""Line charts as SVG text. Colours and fonts are the page's: classes c0, c1, ... and its dark or light scheme.

More lines than colours are dashed, then dotted.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from diffrep_jax.report.values import number

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 38
COLOURS = 6
DASHES = ("", " dashed", " dotted")
TICKS = 5


class Axis:
    """Values -> pixels: from `low` at `start` to `high` at `end`, linear or logarithmic; those outside on the edge."""

    def __init__(self, values: list[float], start: float, end: float, log: bool):
        self._log = log and min(values) > 0
        low, high = min(values), max(values)
        if low == high:
            low, high = (low / 2, high * 2) if self._log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
        self.low, self.high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, value, high = (math.log(x) if self._log else x for x in (self.low, value, self.high))
        return self._start + (self._end - self._start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Round values inside: powers of ten or 1, 2, 5 times them on a logarithmic axis, where there are enough."""
        if self._log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1,), (1, 2, 5)):
                ticks = [d * 10.0**n for n in decades for d in digits if self.low <= d * 10.0**n <= self.high]
                if len(ticks) > 2:
                    return ticks[:: -(-len(ticks) // (TICKS + 2))]
        step = _round_up((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [step * n for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((d * power for d in (1, 2, 5) if d * power >= value * (1 - 1e-9)), 10 * power)


def style(i: int) -> str:
    """The classes of the i-th line of a chart."""
    return f"c{i % COLOURS}{DASHES[i // COLOURS % len(DASHES)]}"


def line_chart(chart: Mapping[str, Any]) -> str:
    """The SVG of a chart block; its lines are {name: [[x, y], ...]} without gaps."""
    points = [point for line in chart["lines"].values() for point in line]
    low, high = chart.get("within") or (-math.inf, math.inf)
    x_axis = Axis([x for x, _ in points], LEFT, WIDTH - RIGHT, chart["log_x"])
    y_axis = Axis([min(max(y, low), high) for _, y in points], HEIGHT - BOTTOM, TOP, chart["log_y"])
    label = escape(f"Chart: {chart['caption']} against {chart['x']}, {len(points)} points", quote=True)
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    parts += _grid(x_axis, y_axis, chart["x"])
    for i, (name, line) in enumerate(chart["lines"].items()):
        parts += _line(name, line, style(i), x_axis, y_axis, chart["dots"] or len(line) == 1)
    return "".join([*parts, "</svg>"])


def _grid(x_axis: Axis, y_axis: Axis, x_name: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in y_axis.ticks():
        y = y_axis(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for value in x_axis.ticks():
        x = x_axis(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_name)}</text>')
    return parts


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4):
            return f"{number(value / size)}{letter}"
    return number(value)


def _line(name: str, line: list[list[float]], style: str, x_axis: Axis, y_axis: Axis, dots: bool) -> list[str]:
    path = " ".join(f"{x_axis(x):.1f},{y_axis(y):.1f}" for x, y in line)
    parts = [f'<polyline class="{style}" points="{path}"/>']
    for x, y in line if dots else ():
        title = f"<title>{escape(name)}: {number(y)} at {number(x)}</title>"
        parts.append(f'<circle class="{style}" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" r="3.5">{title}</circle>')
    return parts
