"""Checksums of a checkpoint's files, written when all of them are there: without them it does not count as whole."""

import concurrent.futures
from collections.abc import Collection

from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout

try:
    from isal.isal_zlib import crc32  # pyright: ignore[reportMissingImports] (the same numbers, ten times as fast)
except ImportError:
    from zlib import crc32

NAME = "checksums.json"
BLOCK = 2**20  # bytes read at a time
THREADS = 4


def seal(folder: epath.Path) -> None:
    """Write the size and the CRC-32 of every file below `folder` into it."""
    layout.write_json(folder / NAME, _sums(folder, _files(folder)))


def is_sealed(folder: epath.Path) -> bool:
    return (folder / NAME).is_file()


def damage(folder: epath.Path, parts: Collection[str] | None = None) -> str | None:
    """What is wrong with the files of a sealed folder, of these subfolders and at its top alone; None: nothing."""
    try:
        expected = layout.read_json(folder / NAME, "")
        sealed = {str(name): tuple(map(int, values)) for name, values in expected.items()}
    except (UserError, AttributeError, TypeError, ValueError):
        return f"{NAME} cannot be read"
    wanted = [name for name in sealed if parts is None or "/" not in name or name.partition("/")[0] in parts]
    if missing := [name for name in wanted if not (folder / name).is_file()]:
        return f"{missing[0]} is missing"
    try:
        actual = _sums(folder, wanted)
    except FileNotFoundError as error:  # a training deletes the checkpoint
        return f"{error.filename} is missing"
    for name in wanted:
        if actual[name] != sealed[name]:
            sizes = (actual[name][0], sealed[name][0])
            return f"{name} has {sizes[0]} bytes, not {sizes[1]}" if sizes[0] != sizes[1] else f"{name} has changed"
    return None


def _files(folder: epath.Path) -> list[str]:
    names: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            names += [f"{path.name}/{name}" for name in _files(path)]
        elif path.name != NAME:
            names.append(path.name)
    return names


def _sums(folder: epath.Path, names: Collection[str]) -> dict[str, tuple[int, int]]:
    with concurrent.futures.ThreadPoolExecutor(THREADS) as threads:
        return dict(zip(names, threads.map(lambda name: _sum(folder / name), names), strict=True))


def _sum(path: epath.Path) -> tuple[int, int]:
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            size, crc = size + len(block), crc32(block, crc)
    return size, crc
