"""Noto Emoji: 3,786 coloured pictures of 64x64 in the npm package emoji-datasource-google, with attributes.

`npm pack emoji-datasource-google` downloads it, 74 MB; the pictures are under the SIL Open Font License.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, given
from diffrep_jax.data.labels import Labels, numbered, rows_by_position
from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.data.sources.folder import FolderSource
from diffrep_jax.data.sources.npm import NpmSource, read_package
from diffrep_jax.data.text_files import read_text
from diffrep_jax.errors import UserError

PACKAGE = "emoji-datasource-google"
TABLE, IMAGES = "emoji.json", "img/google/64"  # in the package
TEST_EVERY = 10
FILE_NAME = re.compile(r"[0-9a-f]+(-[0-9a-f]+)*\.png")

SKIN_TONES = {  # Unicode's modifiers
    "light skin": "1f3fb",
    "medium-light skin": "1f3fc",
    "medium skin": "1f3fd",
    "medium-dark skin": "1f3fe",
    "dark skin": "1f3ff",
}
HAIR = {"blond hair": "1f471", "red hair": "1f9b0", "curly hair": "1f9b1", "bald": "1f9b2", "white hair": "1f9b3"}
# The characters that say so: the sign of the sex; woman, girl, man, boy; and those that Noto draws as one of them.
WOMAN = {
    "2640",
    "1f469",
    "1f467",
    "1f475",
    "1f46b",
    "1f46d",
    "1f470",
    "1f478",
    "1f483",
    "1f930",
    "1f931",
    "1f936",
    "1f9d5",
}
MAN = {"2642", "1f468", "1f466", "1f474", "1f46b", "1f46c", "1f472", "1f57a", "1f934", "1f385", "1fac3"}
ATTRIBUTES = ("yellow skin", *SKIN_TONES, "woman", "man", *HAIR, "smiling face", "flag", "animal")


@dataclasses.dataclass(frozen=True)
class Picture:
    """One image file: `emoji` is the number of the emoji that it shows, the same in all skin tones."""

    file: str
    emoji: int
    category: str
    subcategory: str
    has_tones: bool


class Emoji(SourceImages):
    """Laid on white; the classes are the ten categories, the attributes 0 or 1.

    data_dir is the package (.tgz), the folder in which it lies or into which it is unpacked, or what --task=prepare has
    made of it. Every tenth emoji is "test" in all of its skin tones, in Unicode's order, where related ones are
    neighbours: the test has another woman than train, but the man of the same trade may be in train.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "test")
    key_digits: ClassVar[int] = 7

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, f"{PACKAGE}-16.0.0.tgz, which 'npm pack {PACKAGE}' downloads,")
        source, self._pictures = _open(data_dir)
        class_names, classes = numbered([picture.category for picture in self._pictures])
        labels = Labels(class_names, classes)
        if attributes:
            labels = Labels(class_names, classes, ATTRIBUTES, np.stack([attributes_of(p) for p in self._pictures]))
        super().__init__(source, split_entries(self._pictures, split), split, (image_size, channels), labels)

    def labels_file(self, keys: Sequence[str]) -> tuple[str, str]:
        """The pictures in the order of the LMDB, which is known by position."""
        return TABLE, json.dumps([dataclasses.asdict(picture) for picture in self._pictures], indent=0) + "\n"


def split_entries(pictures: Sequence[Picture], split: str) -> np.ndarray:
    """The entries of a split: the 10th, 20th, ... emoji is held out, the last of fewer than ten."""
    emoji = np.array([picture.emoji for picture in pictures])
    every = min(TEST_EVERY, int(emoji.max()) + 1)
    held_out = emoji % every == every - 1
    return np.flatnonzero({"all": held_out | True, "train": ~held_out, "test": held_out}[split])


def attributes_of(picture: Picture) -> np.ndarray:
    """float32 [k], the `ATTRIBUTES`, from the picture's characters and its group in Unicode's list."""
    characters = set(picture.file.removesuffix(".png").split("-"))
    group = picture.subcategory
    person = picture.category == "People & Body" and (group != "family" or picture.has_tones)  # else a black symbol
    has = {
        "yellow skin": picture.has_tones and not characters & set(SKIN_TONES.values()),
        "woman": person and bool(characters & WOMAN),
        "man": person and bool(characters & MAN),
        "smiling face": group in ("face-smiling", "face-affection"),
        "flag": picture.category == "Flags",
        "animal": group.startswith("animal-") or group in ("cat-face", "monkey-face"),
    }
    has |= {name: character in characters for name, character in (SKIN_TONES | HAIR).items()}
    return np.array([has[name] for name in ATTRIBUTES], np.float32)


# --- what lies where


def _open(data_dir: Path) -> tuple[Source, list[Picture]]:
    """The images, and what each shows, in the same order."""
    try:
        package, archives = _unpacked(data_dir), sorted(data_dir.glob(f"{PACKAGE}-*.tgz"))
        if data_dir.is_file() and data_dir.suffix == ".tgz":
            archives = [data_dir]
        prepared = (data_dir / TABLE).is_file() and any(data_dir.glob("emoji*.lmdb"))
    except OSError as error:
        raise UserError(
            f"'{data_dir}' cannot be read ({error.strerror}): give another path with --data_dir."
        ) from error
    if prepared:
        source = open_source(data_dir)
        pictures = _prepared(data_dir / TABLE)
        rows_by_position(source, len(pictures), data_dir / TABLE)
        return source, pictures
    if package is not None:
        pictures = _published(read_text(package / TABLE), package)
        folder = package / IMAGES
        _check_complete(pictures, {path.name for path in folder.glob("*.png")}, package)
        return FolderSource(folder, [picture.file for picture in pictures]), pictures
    if len(archives) == 1:
        return _packed(archives[0])
    has = f"{len(archives)} packages, of which one is to be given" if archives else f"no {PACKAGE}-*.tgz"
    raise UserError(
        f"There is {has} in '{data_dir}': run 'npm pack {PACKAGE}' and give the .tgz with --data_dir or DIFFREP_DATA."
    )


def _unpacked(data_dir: Path) -> Path | None:
    """The folder of the package, as tar or npm have unpacked it."""
    places = (data_dir, data_dir / "package", data_dir / PACKAGE, data_dir / "node_modules" / PACKAGE)
    return next((place for place in places if (place / TABLE).is_file() and (place / IMAGES).is_dir()), None)


def _packed(path: Path) -> tuple[Source, list[Picture]]:
    files = read_package(path, TABLE, IMAGES)
    if TABLE not in files:
        raise UserError(f"'{path}' has no {TABLE}: give the .tgz of 'npm pack {PACKAGE}'.")
    pictures = _published(files[TABLE].decode("utf-8", "replace"), path)
    _check_complete(pictures, files.keys(), path)
    return NpmSource(path, files, [picture.file for picture in pictures]), pictures


def _check_complete(pictures: Sequence[Picture], names: Any, place: Path) -> None:
    missing = [picture.file for picture in pictures if picture.file not in names]
    if missing:
        lacks = f"'{place}' lacks {len(missing):,} of {len(pictures):,} images, such as {missing[0]}"
        raise UserError(f"{lacks}: run 'npm pack {PACKAGE}' again.")


def _published(text: str, place: Path) -> list[Picture]:
    """The pictures that a package's emoji.json lists, in Unicode's order, an emoji's skin tones after it."""
    try:
        listed = sorted(json.loads(text), key=lambda emoji: (emoji["sort_order"], emoji["image"]))
        pictures = []
        for number, emoji in enumerate(emoji for emoji in listed if emoji["has_img_google"]):
            tones: Mapping[str, Any] = emoji.get("skin_variations", {})
            files = [emoji["image"], *(tone["image"] for tone in tones.values() if tone["has_img_google"])]
            group = (number, emoji["category"], emoji["subcategory"], bool(tones))
            pictures += [Picture(file, *group) for file in files]
        return _checked(pictures)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"The {TABLE} of '{place}' is not that of {PACKAGE} ({error!r}): pack it again.") from error


def _prepared(file: Path) -> list[Picture]:
    try:
        return _checked([Picture(**picture) for picture in json.loads(read_text(file))])
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"'{file}' is not what --task=prepare wrote ({error!r}): prepare the data again.") from error


def _checked(pictures: list[Picture]) -> list[Picture]:
    """Raises ValueError or TypeError where one is not as it should be."""
    for picture in pictures:
        if not FILE_NAME.fullmatch(picture.file):
            raise ValueError(f"image {picture.file!r}")
        if not isinstance(picture.emoji, int) or not isinstance(picture.category + picture.subcategory, str):
            raise TypeError(f"image {picture.file}")
    if not pictures:
        raise ValueError("no images")
    return pictures


Dataset = Emoji
