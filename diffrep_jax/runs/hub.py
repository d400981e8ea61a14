"""Exported runs on the Hugging Face Hub, by addresses such as hf://owner/name@revision.

Of a repository the weights (safetensors), config.json, the card and linear heads (npz) are taken, and nothing is run.
Each file is held against the size and the hash that the Hub has for it. The server is huggingface.co, or that of
HF_ENDPOINT.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from diffrep_jax import paths
from diffrep_jax.errors import UserError
from diffrep_jax.runs import layout

log = logging.getLogger(__name__)

SCHEME = "hf://"
HEADS = "probe/*.npz"
WANTED = ("*.safetensors", layout.CONFIG, "README.md", HEADS)
BLOCK = 2**22  # bytes read at a time
_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_ADDRESS = re.compile(rf"{SCHEME}({_NAME.pattern})(?:@([\w./-]+))?")


def is_address(run: str | os.PathLike[str]) -> bool:
    return paths.text(run).startswith(SCHEME)


def check(repository: str, place: str) -> None:
    """Raises UserError where a text is no owner/name."""
    if not _NAME.fullmatch(repository):
        raise UserError(f"{place}={repository} names no repository; write OWNER/NAME.")


def fetch(address: str) -> pathlib.Path:
    """The local folder of an exported run on the Hub; what is there already is not downloaded again.

    Raises UserError where there is none, it cannot be reached and is not here, or a file is not what the Hub has.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(f"{address} is no address on the Hub; write {SCHEME}OWNER/NAME or {SCHEME}OWNER/NAME@REVISION.")
    repository, revision = match.groups()
    hub = _huggingface_hub(f"Opening {address}")
    with _explained(address, hub):
        try:
            info = hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        except hub.errors.HfHubHTTPError:
            raise
        except Exception as error:  # those of whichever HTTP client the library has: no server has answered
            log.info("%s is not reached (%s): looking for it here.", address, _first_line(error))
            folder = hub.snapshot_download(repository, revision=revision, allow_patterns=WANTED, local_files_only=True)
            return pathlib.Path(folder)
        names = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        if layout.CONFIG not in names or not any(name.endswith(".safetensors") for name in names):
            raise UserError(f"{address} is no exported run: it has no {layout.CONFIG} or no .safetensors at its top.")
        folder = pathlib.Path(hub.snapshot_download(repository, revision=revision, allow_patterns=WANTED))
    for path in (*folder.iterdir(), *folder.glob(HEADS)):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name in names:
            _check_file(path, names[name], address)
    return folder


def push(folder: pathlib.Path, files: Sequence[str], repository: str) -> str:
    """Upload files of a folder, in one commit; the repository is made, private, where it is new. Its web address."""
    hub = _huggingface_hub(f"Pushing to {repository}")
    api = hub.HfApi()
    with _explained(f"{SCHEME}{repository}", hub):
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=["*.safetensors", HEADS],
            commit_message="Upload an export of diffrep_jax",
        )
    return str(commit.commit_url)


def _huggingface_hub(purpose: str) -> Any:
    try:
        import huggingface_hub.errors
    except ImportError:
        raise UserError(f"{purpose} needs huggingface_hub: pip install 'diffrep_jax[hub]'") from None
    return huggingface_hub


@contextlib.contextmanager
def _explained(address: str, hub: Any) -> Iterator[None]:
    """What the library raises as one line."""
    try:
        yield
    except UserError:
        raise
    except hub.errors.LocalEntryNotFoundError:
        raise UserError(f"{address} cannot be reached and is not here: check the network, or HF_ENDPOINT.") from None
    except hub.errors.RevisionNotFoundError:
        raise UserError(f"{address}: there is no such revision; leave @REVISION out for the newest.") from None
    except hub.errors.RepositoryNotFoundError:
        raise UserError(
            f"{address} is not there or private: check the name, or set HF_TOKEN to a token of yours."
        ) from None
    except Exception as error:  # the library's, its HTTP client's, the system's
        reason = _first_line(error)
        raise UserError(
            f"{address}: the Hub refused or was not reached ({reason}); set HF_TOKEN, or try later."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _check_file(path: pathlib.Path, sibling: Any, address: str) -> None:
    """Hold a file against its hash: SHA-256 of large ones, git's of the others."""
    size = path.stat().st_size
    lfs = sibling.lfs
    expected = lfs.sha256 if lfs else sibling.blob_id
    digest = hashlib.sha256() if lfs else hashlib.sha1(f"blob {size}\0".encode())
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if expected and digest.hexdigest() != expected:
        blob = path.resolve()
        path.unlink()
        blob.unlink(missing_ok=True)
        raise UserError(
            f"{path.name} of {address} is not the file that the Hub has: it is deleted here; load it again."
        )
