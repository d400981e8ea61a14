"""Values of a report: what JSON can hold, and how HTML and Markdown both write a number."""

import math
from collections.abc import Mapping
from typing import Any

NONE = "–"


def clean(value: Any) -> Any:
    """The same with lists for tuples and None for numbers that are not finite, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Any) -> str:
    """A value as a reader sees it: four digits, a dash for none. A dict with "text" is written as that says."""
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return value["text"]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return str(value)


def number(value: float) -> str:
    """Four significant digits: 0.002691, 51,200, 6.07e-5, 4.82e-4."""
    if not math.isfinite(value):
        return NONE
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration(seconds: float | None) -> str:
    """158.2 -> "2 min 38 s", 9000 -> "2 h 30 min", 509100 -> "5 d 21 h"."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24:,} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def verdict(protocol: Mapping[str, Any]) -> tuple[str, list[str]]:
    """(whether our protocol is the paper's, why) of an item of a protocols block (`compare.py`), in words."""
    if protocol["same"] is None:
        return "nothing to compare", ["the source does not say how it was measured"]
    if protocol["same"]:
        return "same protocol as far as it is known", [f"equal: {', '.join(protocol['compared'])}"]
    return "another protocol", protocol["differences"]
