"""Which row of a table belongs to which image: by the whole path first, by less of it where that is no guess."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence

from diffrep_jax.errors import UserError

IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".qoi", ".tga", ".psd"),
        *(".dds", ".ico", ".icns", ".cur", ".sgi", ".rgb", ".rgba", ".bw", ".ras", ".pcx", ".dcx", ".msp"),
        *(".xbm", ".xpm"),
    )
)


def natural_order(name: str) -> tuple:
    """The sorting key by which img2 comes before img10, in any mixture of letters and digits."""
    parts = re.split(r"([0-9]+)", name)
    # Longer numbers are larger ones, zeros in front apart: nothing is converted, so their length has no limit.
    return tuple((len(n := part.lstrip("0")), n) if i % 2 else part for i, part in enumerate(parts)), name


def parts_of(name: str) -> tuple[str, ...]:
    """The folders and the file of a path of any system, without the "." of "./a.png"."""
    return tuple(part for part in name.strip().replace("\\", "/").split("/") if part not in ("", "."))


def is_image_name(name: str) -> bool:
    """Whether a path below a folder or in an archive names an image; hidden files and folders are no images."""
    return not is_hidden(name) and suffix(name) in IMAGE_SUFFIXES


def is_hidden(name: str) -> bool:
    """Whether the file or a folder that it is in is hidden, or macOS's record of another file."""
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts_of(name))


def suffix(name: str) -> str:
    """In small letters, with its dot; empty where a file has none, or nothing but one."""
    file = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    dot = file.rfind(".")
    return file[dot:].lower() if 0 < dot < len(file) - 1 else ""


def stem(name: str) -> str:
    """The file's name without the suffix of an image; other dots are part of the name."""
    return _bare((parts_of(name) or ("",))[-1])


def _bare(file: str) -> str:
    end = suffix(file)
    return file[: -len(end)] if end in IMAGE_SUFFIXES else file


class Ambiguous(UserError):
    """A row or an image could belong to more than one of the others."""


def match(keys: Sequence[str], rows: Mapping[str, int], file: object) -> list[int | None]:
    """For each key the row that is its own, None where there is none.

    rows: {name in the table: number of the row}; file: the table's, for the error. A row belongs to the image of the
    same path. Else to that whose path it is the end of, or the reverse, with another suffix of an image or none; but
    only where no other row and no other image comes into question: else Ambiguous.
    """
    whole = {_composed(name): row for name, row in rows.items()}
    if len(whole) != len(rows):
        twice = next(name for name, row in rows.items() if whole[_composed(name)] != row)
        raise Ambiguous(f"'{file}' has {len(rows):,} rows for {len(whole):,} names, '{twice}' twice: keep one of them.")
    by_stem: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for parts in whole:
        by_stem[_bare(parts[-1]) if parts else ""].append(parts)
    names = [_composed(key) for key in keys]
    if len(set(names)) != len(set(keys)):
        raise Ambiguous(
            f"'{file}': two images have names that look alike, with accents written in two ways: rename one."
        )
    own = {parts for parts in names if parts in whole}
    claims: dict[tuple[str, ...], str] = {}  # the row: the image that has it without having its whole path
    result: list[int | None] = []
    for key, parts in zip(keys, names, strict=True):
        row = parts if parts in own else _only(key, parts, by_stem.get(_bare(parts[-1]) if parts else "", ()), file)
        if row is not None and row not in own and claims.setdefault(row, key) != key:
            raise Ambiguous(
                f"'{file}': the row of '{'/'.join(row)}' may be that of '{claims[row]}' or of '{key}': "
                "write their whole paths."
            )
        result.append(None if row is None or (row in own and row != parts) else whole[row])
    return result


def _composed(name: str) -> tuple[str, ...]:
    """`parts_of`, accented letters in one form: macOS writes them apart."""
    return parts_of(unicodedata.normalize("NFC", name))


def _only(
    key: str, parts: tuple[str, ...], candidates: Sequence[tuple[str, ...]], file: object
) -> tuple[str, ...] | None:
    """The one row of the same stem whose folders do not contradict the image's."""
    fitting = [row for row in candidates if _ends_alike(row[:-1], parts[:-1])]
    if len(fitting) > 1:
        fitting = [row for row in fitting if row[-1] == parts[-1]] or fitting
    if len(fitting) > 1:
        two = " and ".join(f"'{'/'.join(row)}'" for row in fitting[:2])
        raise Ambiguous(f"'{file}' has the rows {two} for the image '{key}': write whole paths.")
    return fitting[0] if fitting else None


def _ends_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    length = min(len(a), len(b))
    return length == 0 or a[-length:] == b[-length:]


def likely_cause(key: str, rows: Mapping[str, int]) -> str:
    """Why `key` has no row, as far as names that are nearly the same say; else nothing."""

    def bare_numbers(name: str) -> str:
        return re.sub(r"[0-9]+", lambda digits: digits.group().lstrip("0") or "0", stem(name))

    near = {bare_numbers(name): name for name in rows}.get(bare_numbers(key))
    if near is not None and stem(near) != stem(key):
        return f" '{near}' has lost leading zeros, as in a spreadsheet."
    near = {stem(name).casefold(): name for name in rows}.get(stem(key).casefold())
    if near is not None and stem(near) != stem(key):
        return f" '{near}' differs in capital letters."
    near = {stem(name): name for name in rows}.get(stem(key))
    return f" '{near}' is in another folder, or belongs to another image." if near is not None else ""
