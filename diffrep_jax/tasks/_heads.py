"""The heads that `probe` leaves in a run's folder, one file a part and data set, and their reading."""

import logging
import zipfile

import numpy as np
from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import same_network
from diffrep_jax.readout.head import Head, from_arrays
from diffrep_jax.runs.layout import Run, write_arrays

log = logging.getLogger(__name__)

FOLDER = "probe"
PARTS = ("attributes", "classes")


def path_of(run: Run, part: str, dataset: str) -> epath.Path:
    return run.folder / FOLDER / f"{part}_{dataset}.npz"


def save(run: Run, part: str, head: Head) -> None:
    run.task_folder(FOLDER)
    write_arrays(path_of(run, part, head.dataset), **head.arrays())


def read(path: epath.Path) -> Head:
    """A head's file; UserError where it is none."""
    try:
        with np.load(path) as file:
            return from_arrays({name: file[name] for name in file.files}, str(path))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no head that can be read ({error}); run --task=probe again.") from None


def probed(run: Run, dataset: str, name: str, fingerprint: np.ndarray) -> Head | None:
    """The head of one attribute that `probe` has trained on this very network's codes of this data set, else None."""
    for part in PARTS:
        path = path_of(run, part, dataset)
        if path.is_file() and name in (head := read(path)).names:
            if same_network(head.fingerprint, fingerprint):
                return head.only(name)
            log.warning("The probe's head in %s is of another state of the network: not used.", path)
    return None
