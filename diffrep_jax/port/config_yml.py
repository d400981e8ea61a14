"""The config.yml that the official codes of PDAE and DiTi keep with a checkpoint: what it says of the model's shape.

It is read as plain data: a tag that asks for a Python object is an error, and nothing is run.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from diffrep_jax.errors import UserError

FILE_NAME = "config.yml"
_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class ConfigYml:
    """Fields by dotted names, as in "denoise_fn_config.base_channel"; errors name the file and the field."""

    path: pathlib.Path
    content: Mapping[str, Any]

    def has(self, name: str) -> bool:
        return self._find(name) is not _ABSENT

    def text(self, name: str) -> str:
        return str(self._required(name))

    def number(self, name: str) -> int:
        value = self._required(name)
        if type(value) is not int:
            raise self._wrong(name, value, "a whole number")
        return value

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers, or such a list as text: "50,100"."""
        value = self._required(name)
        try:
            items = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]
            numbers = tuple(int(item) for item in items)
            if numbers != tuple(float(item) for item in items):
                raise ValueError
        except (TypeError, ValueError):
            raise self._wrong(name, value, "a list of whole numbers") from None
        return numbers

    def fraction(self, name: str) -> float:
        value = self._required(name)
        try:
            return float(value)  # YAML takes 1e-4 for text
        except (TypeError, ValueError):
            raise self._wrong(name, value, "a number") from None

    def require(self, name: str, supported: Any) -> None:
        """Raise a UserError where the field is there with another value: the model would not be the same."""
        if not self.has(name):
            return
        value = self.fraction(name) if isinstance(supported, float) else self._find(name)
        if value != supported:
            raise UserError(f"{self.path} has {name}={value}; only {name}={supported} is supported here.")

    def base(self) -> "ConfigYml | None":
        """The config.yml of the frozen DDPM, where `trained_ddpm_config` names one that exists.

        That path starts in the official code's folder, so it is looked for below each folder above this file.
        """
        if not self.has("trained_ddpm_config"):
            return None
        named = pathlib.PurePosixPath(self.text("trained_ddpm_config"))
        below = pathlib.PurePosixPath(*(part for part in named.parts if part not in (".", "..")))
        for folder in self.path.absolute().parents:
            if (folder / below).is_file():
                return read(folder / below)
        return None

    def _find(self, name: str) -> Any:
        value: Any = self.content
        for part in name.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return _ABSENT
            value = value[part]
        return value

    def _required(self, name: str) -> Any:
        value = self._find(name)
        if value is _ABSENT:
            raise UserError(f"{self.path} lacks {name}; is it the {FILE_NAME} of this checkpoint and method?")
        return value

    def _wrong(self, name: str, value: Any, expected: str) -> UserError:
        return UserError(f"{self.path} has {name}={value!r}, which is not {expected}; correct it there.")


def find(checkpoint: str | os.PathLike[str]) -> ConfigYml | None:
    """The config.yml next to a checkpoint, or next to its folder `checkpoints`, as the official trainers write it."""
    folder = pathlib.Path(checkpoint).absolute().parent
    for place in (folder, folder.parent) if folder.name == "checkpoints" else (folder,):
        if (place / FILE_NAME).is_file():
            return read(place / FILE_NAME)
    return None


def read(path: pathlib.Path) -> ConfigYml:
    """A file's fields; raises UserError where it is no YAML, or would have to make Python objects to be read."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        reason = getattr(error, "problem", None) or error
        raise UserError(f"{path} cannot be read as plain YAML: {reason}; correct it or move it away.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, not the sections of an official config; move it away.")
    return ConfigYml(path, content)
