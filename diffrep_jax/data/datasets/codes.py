"""The codes that `--task=encode` has written, for a latent prior: each an "image" of one pixel with d channels."""

import dataclasses
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from diffrep_jax.data.datasets._source_images import SourceImages
from diffrep_jax.data.labels import Labels
from diffrep_jax.data.sources import check_index
from diffrep_jax.data.sources.arrays import ArraySource
from diffrep_jax.errors import UserError, unknown

SCALE_FILE = "codes_scale.npz"  # what a prior's run keeps, a `Scale`
ENCODE = "python launch/main.py --task=encode --workdir=RUN, RUN being that of an auto-encoder"


@dataclasses.dataclass(frozen=True)
class Scale:
    """Where the codes of an auto-encoder lie: z = mean + std times a normalised code.

    Attributes:
      mean, std: [d], over a data set.
      witness: the code [d] of a fixed picture, by which the auto-encoder is known again; None where a file has none.
    """

    mean: np.ndarray
    std: np.ndarray
    witness: np.ndarray | None

    def normalise(self, z: np.ndarray) -> np.ndarray:
        """Codes [..., d] at unit scale; a dimension that is the same in all codes becomes 0."""
        return (z - self.mean) / np.where(self.std > 0, self.std, 1)

    def restore(self, normalised: np.ndarray) -> np.ndarray:
        """Undoes `normalise`."""
        return self.mean + self.std * normalised

    def save(self, file: Path) -> None:
        np.savez(file, **{name: value for name, value in vars(self).items() if value is not None})


class Codes(SourceImages):
    """Codes normalised by the mean and the standard deviation of each dimension, float32 [1, 1, d].

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
        codes, self.scale = _read(file, "codes")["codes"], read_scale(file)
        if codes.ndim != 2 or not len(codes) or codes.shape[1:] != self.scale.mean.shape:
            raise UserError(
                f"'{file}' has codes {codes.shape} and mean {self.scale.mean.shape}: use a file of {ENCODE}."
            )
        if codes.shape[1] != channels:
            raise UserError(
                f"'{file}' has codes of {codes.shape[1]} dimensions, data.channels is {channels}: add "
                f"--config.data.channels={codes.shape[1]}."
            )
        if not np.isfinite(codes).all():
            raise UserError(f"'{file}' has codes that are not finite: encode with a run that has not diverged.")
        super().__init__(ArraySource(codes, str(file)), range(len(codes)), split, (1, channels), Labels())

    def __getitem__(self, index: int) -> dict[str, Any]:
        code = self.source[check_index(index, len(self), self._place)]
        return {"image": self.scale.normalise(code).astype(np.float32)[None, None]}

    def keep(self, workdir: Path) -> None:
        """Write the scale: without it a prior's samples are of no use."""
        self.scale.save(workdir / SCALE_FILE)


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


def read_scale(file: Path) -> Scale:
    """That of one of `encode`'s files, or what a prior's run has kept; UserError where it is neither."""
    arrays = {"witness": None} | _read(file, "mean", "std", optional="witness")
    if arrays["mean"].ndim != 1 or arrays["mean"].shape != arrays["std"].shape:
        raise UserError(f"'{file}' has no mean and std of one length: use a file of {ENCODE}.")
    return Scale(**arrays)


def _read(file: Path, *names: str, optional: str = "") -> dict[str, np.ndarray]:
    """Arrays of an npz in float32; UserError where it is none, or lacks one of `names`."""
    try:
        with np.load(file) as arrays:
            present = {*names, optional} & set(arrays.files)
            found = {name: np.asarray(arrays[name], np.float32) for name in present}
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error}): use a file of {ENCODE}.") from error
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile):  # TypeError: one plain array
        raise UserError(f"'{file}' is no npz of codes: use a file of {ENCODE}.") from None
    if missing := [name for name in names if name not in found]:
        raise UserError(f"'{file}' has no {' and no '.join(missing)}: use a file of {ENCODE}.")
    return found


Dataset = Codes
