"""The standard weight files of the metrics' networks: looked for, or fetched once from their home, and read.

A file lies in `--weights_dir`, under its usual name or as .safetensors of that name, or in the cache,
~/.cache/diffrep_jax (XDG_CACHE_HOME), where what is fetched goes. What is there is used if its checksum is right.
"""

import dataclasses
import hashlib
import http.client
import logging
import os
import pathlib
import urllib.request
from collections.abc import Collection, Mapping

import numpy as np

from diffrep_jax import paths
from diffrep_jax.errors import UserError
from diffrep_jax.metrics import inception, lpips
from diffrep_jax.port import files
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without an answer


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """sha256: all of it, or as many first digits as its authors tell, in hex."""

    name: str
    url: str
    sha256: str


ALEXNET = WeightFile(
    "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79"
)
LPIPS_HEADS = WeightFile(
    "alex.pth",
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)
INCEPTION = WeightFile(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d",
)


def lpips_weights(folder: pathlib.Path | None) -> PyTree:
    """The parameters of `metrics.lpips.distance`; UserError as of `read`."""
    alexnet, heads = lpips.shapes()
    return lpips.weights(read(ALEXNET, alexnet, folder), read(LPIPS_HEADS, heads, folder))


def inception_weights(folder: pathlib.Path | None) -> PyTree:
    """The parameters of `metrics.inception`; UserError as of `read`."""
    return inception.weights(read(INCEPTION, inception.shapes(), folder, more=(inception.CLASSES,)))


def read(
    file: WeightFile, shapes: Mapping[str, tuple[int, ...]], folder: pathlib.Path | None, more: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """The tensors of `shapes`, {name: shape}, in a standard file, and of `more` those that it has; not the others.

    Raises UserError where it is nowhere and cannot be fetched, cannot be read, or is another file.
    """
    path = find(file, folder) or fetch(file)
    tensors = files.read(path)
    for name, shape in shapes.items():
        if name not in tensors or tensors[name].shape != shape:
            state = f"has the shape {tensors[name].shape}, not {shape}" if name in tensors else "is not there"
            raise UserError(f"{path} is not the standard file, its '{name}' {state}; get it from {file.url}")
    return {name: tensors[name] for name in (*shapes, *(name for name in more if name in tensors))}


def find(file: WeightFile, folder: pathlib.Path | None) -> pathlib.Path | None:
    """Where the file lies, None for nowhere. Raises UserError where `folder` is no folder."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--weights_dir {folder} is no folder; give one with {file.name}, or leave it out.")
    names = (file.name, pathlib.Path(file.name).with_suffix(".safetensors").name)
    places = [place / name for place in (folder, paths.cache()) if place is not None for name in names]
    return next((path for path in places if path.is_file() and not _is_another(path, file)), None)


def _is_another(path: pathlib.Path, file: WeightFile) -> bool:
    """Whether a file of the cache has the name alone: it is fetched again. Those in a folder of the user's are his."""
    if path != paths.cache() / file.name:
        return False
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest.startswith(file.sha256):
        return False
    log.warning("%s is not the standard file, its sha256 is %s...: fetching it again.", path, digest[:8])
    return True


def fetch(file: WeightFile) -> pathlib.Path:
    """Download the file into the cache, all of it or nothing; UserError where that fails or the checksum is wrong."""
    target = paths.cache() / file.name
    temporary = target.with_name(f".{file.name}.{os.getpid()}")
    digest = hashlib.sha256()
    log.info("Fetching %s", file.url)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(file.url, timeout=TIMEOUT) as answer, temporary.open("wb") as out:
            while block := answer.read(1 << 20):
                digest.update(block)
                out.write(block)
        if not digest.hexdigest().startswith(file.sha256):
            raise UserError(
                f"{file.url} answered with a file whose sha256 is {digest.hexdigest()[:8]}..., not "
                f"{file.sha256[:8]}...; get {file.name} elsewhere and name its folder with --weights_dir."
            )
        os.replace(temporary, target)
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"{file.name} is not at hand and cannot be fetched ({reason}); download {file.url} and name its folder "
            "with --weights_dir."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return target
