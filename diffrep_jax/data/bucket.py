"""Data in a bucket: copied once into this machine's cache, each file held against its checksum, and read there."""

import base64
import contextlib
import datetime
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from diffrep_jax import paths
from diffrep_jax.errors import UserError

log = logging.getLogger(__name__)

BLOCK = 8 << 20  # bytes that are read at once
THREADS = 8
CONTENTS = "contents.json"


def local(address: str) -> Path:
    """The copy of a file or a folder of a bucket, in ~/.cache/diffrep_jax/data (XDG_CACHE_HOME), brought up to date.

    A file is copied where the bucket has another one than the cache, by size, checksum and time; it keeps the
    bucket's time, so that copies on several machines have one fingerprint. One process copies, others wait for it.
    Raises UserError where the bucket has nothing there, cannot be reached, or what came is not what its checksum says.
    """
    root = paths.cache() / "data" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root):
        files, remote = _listed(address)
        target = root / PurePosixPath(address.rstrip("/")).name
        try:
            known = json.loads((root / CONTENTS).read_text())
        except (OSError, ValueError):
            known = {}
        missing = [name for name, info in files.items() if not _is_there(target / name, known.get(name), info)]
        if missing:
            (root / CONTENTS).unlink(missing_ok=True)  # what is being changed is not known until all of it is there
            _copy({name: files[name] for name in missing}, remote, target, address)
        _remove_others(target, files)
        stamps = {name: _stamp(info) for name, info in files.items()}
        if stamps != known:
            (root / CONTENTS).write_text(json.dumps(stamps))
    return target


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    import fcntl

    with (root / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("Another process copies these data; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _listed(address: str) -> tuple[dict[str, Mapping[str, Any]], Any]:
    """({its path below the address, "." for the address itself: what the bucket says of the file}, the file system)."""
    import fsspec

    try:
        remote, path = fsspec.url_to_fs(address)
        listing = remote.find(path, detail=True)
    except ImportError as error:
        raise UserError(
            f"'{address}' needs a library that is missing ({error}): pip install 'diffrep_jax[gcs]'."
        ) from error
    except Exception as error:  # each store has its own errors: of the network, of permission, of its address
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"'{address}' cannot be read ({reason[:200]}): mend --data_dir, or log in.") from error
    base = path.strip("/")
    files = {os.path.relpath(name.strip("/"), base): info for name, info in listing.items() if not name.endswith("/")}
    if not files:
        raise UserError(f"There is nothing at '{address}': name a folder or a file of the bucket with --data_dir.")
    if outside := next((name for name in files if ".." in PurePosixPath(name).parts), None):
        raise UserError(f"'{address}' has an object with '..' in its name, '{outside}': rename it.")
    return files, remote


def _is_there(path: Path, stamp: list | None, info: Mapping[str, Any]) -> bool:
    return stamp == _stamp(info) and path.is_file() and path.stat().st_size == info["size"]


def _stamp(info: Mapping[str, Any]) -> list:
    """What tells a file of a bucket from its earlier and later ones."""
    return [info["size"], info.get("md5Hash") or info.get("crc32c") or info.get("etag") or "", _time(info)]


def _time(info: Mapping[str, Any]) -> float:
    """When it was written, in seconds; 0 where the store does not say."""
    when = next((info[name] for name in ("mtime", "updated", "LastModified", "created") if info.get(name)), 0)
    when = datetime.datetime.fromisoformat(when) if isinstance(when, str) else when
    return when.timestamp() if isinstance(when, datetime.datetime) else float(when)


def _copy(files: Mapping[str, Mapping[str, Any]], remote: Any, target: Path, address: str) -> None:
    total = sum(info["size"] for info in files.values())
    log.info("Copying %d files, %.1f GB, from '%s' to %s", len(files), total / 1e9, address, target)
    bar = tqdm(total=total, desc="copy", unit="B", unit_scale=True, disable=None, leave=False)
    with bar, ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(_copy_one, remote, info, target / name, bar) for name, info in files.items()]
        try:
            for job in jobs:
                job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _copy_one(remote: Any, info: Mapping[str, Any], target: Path, bar: tqdm) -> None:
    """All of a file or nothing; UserError where it is not what the bucket's checksum, or its size, says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, (name, digest, wanted) = target.with_name(f".{target.name[:200]}.part"), _checksum(info)
    size = 0
    with remote.open(info["name"], "rb") as source, temporary.open("wb") as copy:
        while block := source.read(BLOCK):
            copy.write(block)
            size += len(block)
            bar.update(len(block))
            if digest:
                digest.update(block)
    if size != info["size"] or (digest and base64.b64encode(digest.digest()).decode() != wanted):
        temporary.unlink()
        raise UserError(f"'{info['name']}' came with another {name} than the bucket says: try again.")
    if time := _time(info):
        os.utime(temporary, (time, time))
    os.replace(temporary, target)


def _checksum(info: Mapping[str, Any]) -> tuple[str, Any, str]:
    """(name, digest to be fed, what it should come to in base64): MD5, or where objects were composed CRC32C."""
    if info.get("md5Hash"):
        return "MD5", hashlib.md5(usedforsecurity=False), info["md5Hash"]
    if info.get("crc32c"):
        import google_crc32c  # pyright: ignore[reportMissingImports]  # gcsfs brings it

        return "CRC32C", google_crc32c.Checksum(), info["crc32c"]
    return "size", None, ""


def _remove_others(target: Path, files: Mapping[str, Any]) -> None:
    """What the bucket has no longer, and what a copy that was stopped has left."""
    if target.is_dir():
        for path in target.rglob("*"):
            if path.is_file() and path.relative_to(target).as_posix() not in files:
                path.unlink()
