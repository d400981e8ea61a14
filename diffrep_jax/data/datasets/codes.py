"""The codes that `--task=encode` has written, for a latent prior: each an "image" of one pixel with d channels."""

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.datasets._source_images import SourceImages
from diffrep_jax.data.labels import Labels
from diffrep_jax.data.sources import check_index
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.errors import UserError, unknown

SCALE_FILE = "codes_scale.npz"  # what a run keeps: mean [d] and std [d]
ENCODE = "python launch/main.py --task=encode --workdir=RUN, RUN being that of an auto-encoder"


class Codes(SourceImages):
    """Codes normalised by the mean and the standard deviation of each dimension, float32 [1, 1, d].

    data_dir is one of the files, or the folder `encode` of a run with the one of this split. A dimension that is the
    same in all codes becomes 0.
    """

    splits: ClassVar[tuple[str, ...]] = ("all", "train", "validation", "test")
    attributes_from: ClassVar[str] = "codes have none here; probe their auto-encoder's run."

    def __init__(self, data_dir: Path | None, split: str, image_size: int, channels: int, attributes: bool):
        if split not in self.splits:
            raise unknown("split", split, self.splits, place=f"data set '{self.name}'")
        if image_size != 1:
            raise UserError(f"data.image_size is {image_size}: use 1, as a code is an image of one pixel.")
        file = find(data_dir, split)
        codes, self.mean, self.std = _read(file, "codes", "mean", "std")
        if codes.ndim != 2 or not len(codes) or self.mean.shape != codes.shape[1:] or self.std.shape != codes.shape[1:]:
            raise UserError(
                f"'{file}' has codes {codes.shape}, mean {self.mean.shape}, std {self.std.shape}: use one of {ENCODE}."
            )
        if codes.shape[1] != channels:
            raise UserError(
                f"'{file}' has codes of {codes.shape[1]} dimensions, data.channels is {channels}: add "
                f"--config.data.channels={codes.shape[1]}."
            )
        if not np.isfinite(codes).all():
            raise UserError(f"'{file}' has codes that are not finite: encode again with a run that has not diverged.")
        self._scale = np.where(self.std > 0, self.std, 1)
        super().__init__(ArraySource(codes, str(file)), range(len(codes)), split, (1, channels), Labels())

    def __getitem__(self, index: int) -> dict[str, Any]:
        code = self.source[check_index(index, len(self), self._place)]
        return {"image": ((code - self.mean) / self._scale).astype(np.float32)[None, None]}

    def keep(self, workdir: Path) -> None:
        """Write mean and std: without them a prior's samples are of no use."""
        np.savez(workdir / SCALE_FILE, mean=self.mean, std=self.std)


def find(data_dir: Path | None, split: str) -> Path:
    """The file that `data_dir` is, or the one in it whose name ends in _<split>.npz."""
    remedy = f"write codes with {ENCODE}, then give RUN/encode with --data_dir."
    if data_dir is None:
        raise UserError(f"The data set 'codes' needs codes: {remedy}")
    if data_dir.is_file():
        return data_dir
    found = sorted(data_dir.glob(f"*_{split}.npz"))
    if not found:
        raise UserError(f"There are no codes of the split '{split}', no *_{split}.npz, in '{data_dir}': {remedy}")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise UserError(f"'{data_dir}' has {names}: give the file that is meant with --data_dir.")
    return found[0]


def read_scale(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(mean [d], std [d]) of codes: from one of `encode`'s files, or from what a run has kept."""
    mean, std = _read(file, "mean", "std")
    return mean, std


def _read(file: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an npz as float32; UserError where it is none, or one is not in it."""
    try:
        with np.load(file) as arrays:
            return [np.asarray(arrays[name], np.float32) for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"'{file}' does not read as codes ({error}): use a file of {ENCODE}.") from error


Dataset = Codes
