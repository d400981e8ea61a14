"""Paths as people type them, in flags, config fields and Python: ~ and environment variables are put in here alone."""

import os
import pathlib
import re

from diffrep_jax.errors import UserError

LONGEST, LONGEST_NAME = 4095, 255  # bytes: what file systems take
_VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def expanded(path: str | os.PathLike[str], place: str = "") -> str:
    """The path with ~ and environment variables put in; UserError where no system could have it.

    place: where it was given, for messages. What does not exist otherwise may not name a variable that is not set.
    """
    typed = text(path)
    check(typed, place)
    full = os.path.expanduser(os.path.expandvars(typed))
    if full != typed:
        check(full, place)
    unset = _VARIABLE.search(full)
    if unset and unset.group(1).strip("{}") not in os.environ and not os.path.exists(full):
        name = unset.group(1).strip("{}")
        raise UserError(f"{_named(place)}'{typed}' names the environment variable {name}, which is not set; set it.")
    if full.startswith("~") and not os.path.exists(full):
        raise UserError(
            f"{_named(place)}'{typed}': this system knows no home of {full.partition('/')[0]}; write it out."
        )
    return full


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether it is of a bucket, gs://bucket/folder, or of another store, and not of this machine's files."""
    return "://" in text(path)


def text(path: str | os.PathLike[str]) -> str:
    """The path as it was typed; UserError for what is none."""
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise UserError(f"{repr(path)[:80]} names no file or folder; give a text or a Path.")
    return os.fspath(path)


def cache() -> pathlib.Path:
    """Where what was fetched is kept: diffrep_jax in XDG_CACHE_HOME, or in ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (pathlib.Path(home) if home else pathlib.Path.home() / ".cache") / "diffrep_jax"


def check(path: str, place: str = "") -> None:
    """Raise UserError where no system could have such a path, whatever its variables stand for."""
    if not path.strip():
        raise UserError(f"{_named(place)}{path!r} is empty; name a file or folder, or leave it out.")
    if any(character < " " for character in path):
        raise UserError(f"{_named(place)}{_shortened(path)!r} has a control character in it; name another path.")
    names = [os.fsencode(name) for name in path.split("/")]
    if sum(map(len, names)) + len(names) - 1 > LONGEST or max(map(len, names)) > LONGEST_NAME:
        raise UserError(
            f"{_named(place)}{_shortened(path)!r} is too long; use at most {LONGEST} bytes, {LONGEST_NAME} a name."
        )


def _shortened(path: str) -> str:
    return path if len(path) <= 80 else f"{path[:60]}...{path[-15:]}"


def _named(place: str) -> str:
    return f"{place}: " if place else "The path "
