"""The linear heads that `--task=probe` has left in a run's folder: what its codes say, and where an attribute lies."""

import logging
import os
import zipfile

import numpy as np

from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import shown
from diffrep_jax.inference.model import Model
from diffrep_jax.readout.head import Head, from_arrays
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs import hub
from diffrep_jax.runs.layout import as_path
from diffrep_jax.runs.weights import same_network

log = logging.getLogger(__name__)

FOLDER = "probe"
PARTS = ("attributes", "measures", "classes")


def read(path: str | os.PathLike[str]) -> Head:
    """A head's file; UserError where it is none."""
    try:
        with as_path(path).open("rb") as opened, np.load(opened) as file:
            return from_arrays({name: file[name] for name in file.files}, str(path))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no head that can be read ({error}); run --task=probe again.") from None


def stored(folder: str | os.PathLike[str], model: Model) -> dict[tuple[str, str], Head]:
    """{(data set, part): head} of all data sets that were probed, for these weights; the log names those of others."""
    heads, own = {}, model.fingerprint()
    for path in sorted((as_path(folder) / FOLDER).glob("*.npz")):
        part, _, dataset = path.stem.partition("_")
        if part not in PARTS or not dataset:
            continue
        head = read(path)
        if same_network(head.fingerprint, own):
            heads[dataset, part] = head
        else:
            log.warning("%s is of another network, or of an earlier state of this one: not used.", path)
    return heads


def load_heads(folder: str | os.PathLike[str], model: Model, dataset: str = "") -> dict[str, Head]:
    """{"classes": head, "attributes": head, "measures": head}, those that there are, for the codes of `model`.

    folder: a run, what --task=export wrote, or hf://owner/name.
    dataset: what they were trained on; "" for the run's own, or for the only one that was probed. Raises UserError
    where there are none that were trained on these weights.
    """
    if not isinstance(model, Model):
        raise UserError(f"model is {shown(model)}, no model; open the run with diffrep_jax.load.")
    folder, named = hub.fetch(os.fspath(folder)) if hub.is_address(folder) else folder, os.fspath(folder)
    if not as_path(folder).is_dir():
        raise UserError(f"There is no folder {named}; give that of a run, or of what --task=export wrote.")
    heads = stored(folder, model)
    names = sorted({name for name, _ in heads})
    if not names:
        raise UserError(f"{named} has no heads of these weights; run --task=probe --workdir={named} first.")
    own = run_config.load(folder).data.name
    chosen = dataset or (own if own in names or len(names) > 1 else names[0])
    if chosen not in names:
        raise unknown("data set of heads", chosen, names, named)
    return {part: head for (name, part), head in heads.items() if name == chosen}
