"""The one rule by which methods, tasks, samplers, data sets and rule tables are known: a file that has the symbol."""

import functools
import importlib
import pathlib
import re
from typing import Any


@functools.cache
def names(package: str, symbol: str) -> tuple[str, ...]:
    """The files of a package, without a leading underscore, that say `symbol = ...`; nothing is imported."""
    folder = pathlib.Path(__file__).parent.joinpath(*package.split(".")[1:])
    line = re.compile(rf"^{symbol} = ", re.MULTILINE)
    files = (path for path in folder.glob("*.py") if not path.stem.startswith("_"))
    return tuple(sorted(path.stem for path in files if line.search(path.read_text(encoding="utf-8"))))


def load(package: str, name: str, symbol: str) -> Any:
    """The symbol of one of these files."""
    return getattr(importlib.import_module(f"{package}.{name}"), symbol)
