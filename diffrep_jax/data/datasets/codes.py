"""The codes that `--task=encode` has written, for a latent prior: each an "image" of one pixel with d channels."""

import json
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.datasets._source_images import SourceImages
from diffrep_jax.data.labels import Labels
from diffrep_jax.data.sources import Source, check_index, open_source
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.errors import UserError, unknown

log = logging.getLogger(__name__)

ENCODE = "python launch/main.py --task=encode --workdir=RUN, RUN being that of an auto-encoder"


class Codes(SourceImages):
    """Codes as they are, float32 [1, 1, d]; mean, deviation and the auto-encoder's fingerprint are their statistics.

    data_dir is one of the files, or the folder `encode` of a run with the one of this split.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "validation", "test")
    attributes_from: ClassVar[str] = "codes have none here; probe their auto-encoder's run."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        if split not in self.splits:
            raise unknown("split", split, self.splits, place=f"data set '{self.name}'")
        if image_size != 1:
            raise UserError(f"data.image_size is {image_size}: use 1, as a code is an image of one pixel.")
        file = find(data_dir, split)
        arrays = _read(file, "codes", "mean", "std", optional="fingerprint")
        codes = arrays.pop("codes")
        warn_of_other_images(file, _source(file))
        if codes.ndim != 2 or not len(codes) or any(values.shape != codes.shape[1:] for values in arrays.values()):
            others = ", ".join(f"{name} {values.shape}" for name, values in arrays.items())
            raise UserError(f"'{file}' has codes {codes.shape} and {others}: use a file of {ENCODE}.")
        self._statistics = arrays
        if codes.shape[1] != channels:
            raise UserError(
                f"'{file}' has codes of {codes.shape[1]} dimensions, data.channels is {channels}: add "
                f"--config.data.channels={codes.shape[1]}."
            )
        if not np.isfinite(codes).all():
            raise UserError(f"'{file}' has codes that are not finite: encode with a run that has not diverged.")
        super().__init__(ArraySource(codes, str(file)), range(len(codes)), split, (1, channels), Labels())

    def __getitem__(self, index: int) -> dict[str, Any]:
        code = np.asarray(self.source[check_index(index, len(self), self._place)])
        return {"image": code[None, None]}

    @property
    def statistics(self) -> Mapping[str, np.ndarray]:
        return self._statistics


def record(source: Source) -> str | None:
    """Where the images of codes lie and which ones they are, for the file; None where they are in no file."""
    if source.path is None or len(source) == 1:
        return None
    return json.dumps({"path": os.path.realpath(source.path), "fingerprint": source.fingerprint()})


def warn_of_other_images(file: Path, recorded: np.ndarray | None) -> None:
    """Say so in the log where the images of a file of codes have changed since, if they are still where they were."""
    try:
        images = json.loads(str(recorded)) if recorded is not None else {"path": ""}
        path = Path(images["path"])
        if not images["path"] or not path.exists() or open_source(path).fingerprint() == images["fingerprint"]:
            return
    except (UserError, ValueError, KeyError, TypeError):
        return
    log.warning("'%s' has codes of images that have changed since, in '%s': run --task=encode again.", file, path)


def find(data_dir: Path | None, split: str) -> Path:
    """The file that `data_dir` is, or the one in it whose name ends in _<split>.npz."""
    remedy = f"write codes with {ENCODE}, then give RUN/encode with --data_dir."
    if data_dir is None:
        raise UserError(f"The data set 'codes' needs codes: {remedy}")
    if data_dir.is_file():
        return data_dir
    files = sorted(data_dir.glob(f"*_{split}.npz"))
    if not files:
        raise UserError(f"There are no codes of the split '{split}', no *_{split}.npz, in '{data_dir}': {remedy}")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(f"'{data_dir}' has {names}: give the file that is meant with --data_dir.")
    return files[0]


def _source(file: Path) -> np.ndarray | None:
    with np.load(file) as arrays:
        return arrays["source"] if "source" in arrays.files else None


def _read(file: Path, *names: str, optional: str = "") -> dict[str, np.ndarray]:
    """Arrays of an npz in float32; UserError where it is none, or lacks one of `names`."""
    try:
        with np.load(file) as arrays:
            present = [name for name in (*names, optional) if name in arrays.files]
            values = {name: np.asarray(arrays[name], np.float32) for name in present}
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error}): use a file of {ENCODE}.") from error
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile):  # TypeError: one plain array
        raise UserError(f"'{file}' is no npz of codes: use a file of {ENCODE}.") from None
    if missing := [name for name in names if name not in values]:
        raise UserError(f"'{file}' has no {' and no '.join(missing)}: use a file of {ENCODE}.")
    return values


Dataset = Codes
