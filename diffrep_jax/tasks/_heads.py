"""Heads in files: those that `probe` leaves in a run's folder, one a part and data set, and the authors' own."""

import logging
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from diffrep_jax.errors import UserError
from diffrep_jax.inference.heads import FOLDER, PARTS, read
from diffrep_jax.inference.model import Model
from diffrep_jax.port import files, heads
from diffrep_jax.readout.head import Head
from diffrep_jax.runs.layout import Run, write_arrays
from diffrep_jax.runs.weights import same_network
from diffrep_jax.tasks import _attributes
from diffrep_jax.tasks._codes import Codes

log = logging.getLogger(__name__)


def path_of(run: Run, part: str, dataset: str) -> epath.Path:
    return run.folder / FOLDER / f"{part}_{dataset}.npz"


def save(run: Run, heads: Mapping[str, Head]) -> None:
    """All heads {part: head} of a data set, in the place of those that there were of it."""
    run.task_folder(FOLDER)
    for part, head in heads.items():
        write_arrays(path_of(run, part, head.dataset), **head.arrays())
    for dataset in {head.dataset for head in heads.values()}:
        for part in set(PARTS) - heads.keys():
            path_of(run, part, dataset).unlink(missing_ok=True)


def check_given(path: epath.Path) -> None:
    """Raise UserError where there is no such file."""
    if not path.is_file():
        raise UserError(
            f"tasks.manipulate.head={path} is no file; give a head's, such as RUN/probe/attributes_DATA.npz."
        )


def given(path: epath.Path, model: Model, statistics: Callable[[], Codes]) -> Head:
    """The head in a file of `probe` or `manipulate`, or of DBAE, PDAE, DiTi or DiffAE, for the codes of this model.

    `statistics`: codes whose mean and deviation stand in where a head is on normalised codes and does not say them.
    Raises UserError where it is another network's, as far as the file tells.
    """
    check_given(path)
    if path.suffix == ".npz":
        head = read(path)
        if not same_network(head.fingerprint, model.fingerprint()):
            raise UserError(
                f"{path} is of another network, or of an earlier state of this one; run --task=probe again."
            )
        return head
    official = heads.head(files.read_parts(path), str(path))
    d = model.latent_dim
    if len(official.kernel) != d:
        raise UserError(f"{path} reads codes of {len(official.kernel)} dimensions, this model's have {d}.")
    mean, std = official.mean, official.std
    if official.normalised and (mean is None or std is None):
        codes = statistics()
        mean, std = codes.mean, np.where(codes.std > 0, codes.std, 1)
        log.info("%s reads normalised codes and does not say their mean: taken from the training codes here.", path)
    kernel = official.kernel if mean is None or std is None else official.kernel / std[:, None]
    bias = official.bias if mean is None else official.bias - mean @ kernel
    return Head(
        names=official.names,
        kernel=kernel,
        bias=bias,
        kind="bce",
        dataset="",
        trained_by=str(path),
        mean=np.zeros(d) if mean is None else mean,
        std=np.ones(d) if std is None else std,
        fingerprint=model.fingerprint(),
    )


def probed(run: Run, dataset: str, name: str, codes: Codes, targets: np.ndarray) -> Head | None:
    """The head of one attribute that `probe` has trained on these very codes and labels of a data set, else None, and
    the log says why."""
    is_class, number = _attributes.place(codes, name)
    own = codes.class_names[number] if is_class else name
    for part in PARTS:
        path = path_of(run, part, dataset)
        if (part == "classes") == is_class and path.is_file() and own in (head := read(path)).names:
            head = head.only(own)
            if not same_network(head.fingerprint, codes.fingerprint):
                log.warning("The probe's head in %s is of another state of the network: not used.", path)
            elif head.trained_on != (codes.target_fingerprint(targets),):
                log.warning("The probe's head of '%s' in %s is of other images or labels: not used.", name, path)
            elif not head.kernel.any():
                log.warning("The probe's head of '%s' in %s has learned from a constant: not used.", name, path)
            else:
                return head
    return None
