"""LFW (Huang et al. 2007), funneled: 13,233 faces of 5,749 people, 73 attributes (Kumar et al. 2009)."""

import logging
from collections import defaultdict
from pathlib import Path
from typing import ClassVar

import numpy as np

from diffrep_jax.data import transforms
from diffrep_jax.data.datasets._checks import check_request
from diffrep_jax.data.datasets._source_images import SourceImages, companion_file, given
from diffrep_jax.data.labels import Labels
from diffrep_jax.data.names import stem
from diffrep_jax.data.sources import Source, open_source
from diffrep_jax.data.text_files import read_text
from diffrep_jax.errors import UserError

USUAL_NAMES = (
    *("lfw_funneled", "lfw-funneled", "lfw_funneled.zip", "lfw-funneled.zip", "lfw_funneled.tar", "lfw-funneled.tar"),
    *("lfw_funneled.tgz", "lfw-funneled.tgz"),
)
ATTRIBUTES = 73
SPLIT_FILES = {"train": "peopleDevTrain.txt", "test": "peopleDevTest.txt"}
ATTRIBUTE_FILE = "lfw_attributes.txt"


class Lfw(SourceImages):
    """The people of View 1: each person's images are all in train or all in test.

    data_dir holds lfw_funneled (a folder or a zip), peopleDevTrain.txt, peopleDevTest.txt and lfw_attributes.txt.
    The published attributes leave 90 images out; with attributes, so does the split.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "test")
    attributes_from: ClassVar[str] = f"put {ATTRIBUTE_FILE} next to the folder of the images."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        check_request(self.name, self.splits, split, image_size, channels)
        data_dir = given(self.name, data_dir, "lfw_funneled")
        source = open_source(data_dir, USUAL_NAMES)
        entries = _entries(data_dir, source, split)
        labels = Labels()
        file = companion_file(data_dir, source, (ATTRIBUTE_FILE,)) if attributes else None
        if file is not None:
            labels, known = read_attributes(file, source)
            entries, everything = [entry for entry in entries if known[entry]], entries
            logging.getLogger(__name__).info(
                f"lfw: '{file}' has attributes of {len(entries):,} of the {len(everything):,} images of '{split}'."
            )
        super().__init__(source, entries, split, (image_size, channels), labels)

    def to_size(self, image: np.ndarray, size: int, place: str) -> np.ndarray:
        """The middle of the image at 1.1 times the size, as published."""
        return transforms.resize(image, size, short_side=int(1.1 * size))


def _person(key: str) -> str:
    """Person_Name of '.../Person_Name_0001.jpg'."""
    return key.rpartition("/")[2].rpartition("_")[0]


def _entries(data_dir: Path, source: Source, split: str) -> list[int]:
    """The entries of the split's people, in the order of its file. Raises UserError where images are missing."""
    if split == "all":
        return list(range(len(source)))
    file = companion_file(data_dir, source, (SPLIT_FILES[split],))
    if file is None:
        raise UserError(f"There is no {SPLIT_FILES[split]} in '{data_dir}': put it there, or use the split 'all'.")
    of_person = defaultdict(list)
    for entry in range(len(source)):
        of_person[_person(source.key(entry))].append(entry)
    try:
        number, *lines = read_text(file).split("\n")
        people = [(person, int(count)) for person, count in (line.split() for line in lines if line.strip())]
        if int(number) != len(people):
            raise UserError(
                f"'{file}' says that it has {int(number):,} people, but has {len(people):,}: copy it again."
            )
    except ValueError as error:
        raise UserError(f"'{file}' does not read as a list of people ({error}): copy it again.") from error
    for person, count in people:
        if len(of_person[person]) != count:
            raise UserError(
                f"'{file}' says {count} images of {person}, '{source.path}' has {len(of_person[person])}: "
                "unpack the images again."
            )
    return [entry for person, _ in people for entry in of_person[person]]


def read_attributes(file: Path, source: Source) -> tuple[Labels, np.ndarray]:
    """The attributes of all entries, zeros for those that `file` leaves out, and bool [n]: which are known."""
    lines = read_text(file).split("\n")
    names = tuple(name.strip() for name in lines[1].split("\t")[3:]) if len(lines) > 1 else ()
    if len(names) != ATTRIBUTES:
        raise UserError(
            f"'{file}' names {len(names)} attributes in line 2, not the published {ATTRIBUTES}: copy it again."
        )
    entry_of: dict[str, int] = {}
    for entry in range(len(source)):  # rows have the name of a person and a number, no folder
        if (other := entry_of.setdefault(stem(source.key(entry)), entry)) != entry:
            raise UserError(
                f"'{source.path}' has both '{source.key(other)}' and '{source.key(entry)}', which one row of '{file}' "
                "would label: keep one of them."
            )
    values = np.zeros((len(source), ATTRIBUTES), np.float32)
    known = np.zeros(len(source), bool)
    rows = [line.split("\t") for line in lines[2:] if line.strip()]
    for row in rows:
        if len(row) != ATTRIBUTES + 2:
            person, had = " ".join(row[:2]), len(row) - 2
            raise UserError(f"'{file}' has {had} values for {person}, not {ATTRIBUTES}: copy it again.")
        try:
            entry = entry_of.get(f"{row[0].replace(' ', '_')}_{int(row[1]):04d}")
            measures = np.array(row[2:], np.float32)
        except ValueError as error:
            raise UserError(f"'{file}', row of '{row[0]}' does not read ({error}): copy it again.") from error
        if entry is not None:
            values[entry], known[entry] = measures, True
    if not known.any():
        raise UserError(
            f"'{file}' has {len(rows):,} rows, '{source.path}' {len(source):,} images, and no name is in both: "
            "give the file that belongs to these images."
        )
    return Labels(attribute_names=names, attributes=values), known


Dataset = Lfw
