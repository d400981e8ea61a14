"""A recipe of sampling in words, for the legends of curves: its sampler, and the settings in which several differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Line = Mapping[str, Any]  # of a task's metrics.json

SAMPLERS = {"euler": "Euler", "heun": "Heun"}
STARTS = {"noise": "start with noise", "noise_only": "start with noise alone"}
# setting: its value in words; what has its usual value, or is of no use to the sampler, is not said
WORDS: dict[str, Callable[[Any], str]] = {
    "corrector": lambda value: "corrector",
    "clock": lambda value: f"clock {value}",
    "eta": lambda value: f"eta {value:g}",
    "churn_step_ratio": lambda value: f"churn {value:g}",
    "start": lambda value: STARTS.get(value, ""),
    "grid": lambda value: f"on {value}",
    "encode": lambda value: f"code by {value}",
    "invert_steps": lambda value: f"inverted {value}",
    "images": lambda value: f"{value:,} images",
    "dataset": str,
}


def in_words(line: Line, lines: Sequence[Line]) -> str:
    """How the images of a line were decoded, as far as the lines differ."""
    parts = [_sampler(line)]
    for setting, words in WORDS.items():
        value = line.get(setting)
        if value and len({other.get(setting) for other in lines}) > 1:
            parts.append(words(value))
    return ", ".join(filter(None, parts))


def _sampler(line: Line) -> str:
    name = str(line.get("sampler"))
    return f"{name}, order {line['order']}" if name == "exponential" and "order" in line else SAMPLERS.get(name, name)
