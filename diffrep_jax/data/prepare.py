"""Write a data set as an LMDB in the layout of the DiffAE project: in parallel, and resumed where it was killed.

<folder>/<name><size>.lmdb has the keys <size>-<digits> ("None" where images keep their size) and `length`. While it is
written it is called .partial, so that nobody trains on a part. Beside it lies manifest.json: source, settings, count
and checksum; and the labels, brought into the order of the LMDB.
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from diffrep_jax import whole
from diffrep_jax.data import transforms
from diffrep_jax.data.bad_entries import BadEntries, BadEntry
from diffrep_jax.data.decoding import decode, describe
from diffrep_jax.data.parallel import in_order
from diffrep_jax.data.sources import Source
from diffrep_jax.errors import UserError

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
COMMIT_EVERY = 256  # images: what a kill may cost
FIRST_MAP_SIZE = 1 << 28  # bytes; doubled when it is full
KEPT_FORMATS = ("JPEG", "PNG", "WEBP")  # stored as they are, where the picture is not changed
IDENTITY = ("dataset", "lmdb", "source", "settings")  # fields of the manifest that say which data these are

Progress = Callable[[Iterable[Any], int, str], Iterator[Any]]


class Preparable(Protocol):
    """A data set whose images can go into an LMDB."""

    name: str
    source: Source
    key_digits: int

    def to_square(self, image: np.ndarray, place: str) -> np.ndarray: ...

    def labels_file(self, keys: list[str]) -> tuple[str, str] | None: ...


@dataclasses.dataclass(frozen=True)
class Settings:
    """How images are stored.

    Attributes:
      size: of the square image, the short side resized and the centre taken; 0: images keep their size, and with it
        their bytes where these are JPEG, PNG or WebP.
      crop: first take the published crop.
      quality: of JPEG, 1 to 100. lossless: WebP without loss instead.
    """

    size: int = 256
    crop: bool = False
    quality: int = 95
    lossless: bool = False

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UserError(f"size is {self.size}: use 0 to keep the size, or a number of pixels.")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality is {self.quality}: use 1 to 100.")


def prepare(
    dataset: Preparable,
    folder: Path,
    settings: Settings,
    *,
    workers: int,
    max_bad_fraction: float,
    progress: Progress = lambda items, total, what: iter(items),
) -> dict[str, Any]:
    """Write all images of the data set's source into `folder`, or what is left of them; returns the manifest.

    An image that does not decode is stored as it is, so that the numbers of the others stay what they were: the
    loader leaves it out again. Raises UserError where `folder` holds other data or is that of the images, before
    anything is written, or where too many images are bad.
    """
    if dataset.source.path and os.path.realpath(dataset.source.path) == os.path.realpath(folder):
        raise UserError(f"'{folder}' is the folder of the images themselves: give another --workdir.")
    prefix = str(settings.size or None)
    keys = [f"{prefix}-{i:0{dataset.key_digits}d}" for i in range(len(dataset.source))]
    path = folder / f"{dataset.name}{settings.size or ''}.lmdb"
    partial = path.with_name(f"{path.name}.partial")
    manifest = _manifest(dataset, path, settings)
    held = _held_manifest(folder, manifest, (path, partial))
    labels = dataset.labels_file(keys)
    _refuse_other_labels(folder, labels)
    if held and held["complete"] and path.exists():
        _write_labels(folder, labels)
        log.info("'%s' is complete already: %d images.", path, held["count"])
        return held
    bad: set[str] = set(held["bad"] if held else ())
    limit = BadEntries(len(keys), max_bad_fraction)

    def note(index: int, error: BadEntry) -> None:
        limit.note(index, error)
        bad.add(keys[index])
        _write_manifest(folder, manifest | {"bad": sorted(bad)})

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_manifest(folder, manifest | {"bad": sorted(bad)})
        _write_labels(folder, labels)
        if not path.exists():
            with _Writer(partial, keys) as writer:
                left = range(writer.done(), len(keys))
                encoded = in_order(lambda i: (i, *_encode(dataset, i, settings)), left, workers)
                writer.write(progress(encoded, len(left), "prepare"), note)
            os.replace(partial, path)
        manifest |= {"complete": True, "bad": sorted(bad), "count": len(keys)}
        manifest["sha256"] = checksum(path, keys, progress)
        _write_manifest(folder, manifest)
    except OSError as error:
        raise UserError(
            f"'{folder}' cannot be written ({error.strerror}): what was written is kept, the same command goes on."
        ) from error
    return manifest


def _manifest(dataset: Preparable, path: Path, settings: Settings) -> dict[str, Any]:
    source = dataset.source
    return {
        "dataset": dataset.name,
        "lmdb": path.name,
        "source": {
            "kind": source.kind,
            "path": os.path.realpath(source.path or ""),
            "images": len(source),
            "fingerprint": source.fingerprint(),
        },
        "settings": dataclasses.asdict(settings),
        "complete": False,
        "count": 0,
        "bad": [],  # the keys of images that do not decode
        "sha256": "",  # of all keys and values, in order
    }


def _held_manifest(folder: Path, manifest: dict[str, Any], paths: Iterable[Path]) -> dict[str, Any] | None:
    """The manifest in `folder`, which is that of these very data; None where there is none, and none of `paths`.

    Raises UserError where the folder holds other data.
    """
    file = folder / MANIFEST
    if not file.exists():
        for path in paths:
            if path.exists():
                raise UserError(
                    f"'{path}' exists and has no {MANIFEST}: nothing is overwritten; give another --workdir."
                )
        return None
    try:
        held = json.loads(file.read_text())
        _refuse_changed_images(held["source"], manifest["source"], folder)
        for field in IDENTITY:
            if held[field] != manifest[field]:
                raise UserError(
                    f"'{folder}' holds other data, {field}: {json.dumps(held[field])}, not "
                    f"{json.dumps(manifest[field])}; nothing is overwritten; give another --workdir."
                )
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{file}' is not the manifest of an LMDB ({error!r}): give another --workdir.") from error
    return held


def _refuse_changed_images(held: dict[str, Any], source: dict[str, Any], folder: Path) -> None:
    """Raise UserError where the images at the same place are other ones; an earlier version kept no fingerprint."""
    known = held.setdefault("fingerprint", source["fingerprint"])
    if held | {"fingerprint": ""} == source | {"fingerprint": ""} and known != source["fingerprint"]:
        raise UserError(
            f"The images in '{source['path']}' have changed since '{folder}' was written from them: nothing is "
            "overwritten; give another --workdir."
        )


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    with whole.replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2) + "\n")


def _refuse_other_labels(folder: Path, labels: tuple[str, str] | None) -> None:
    """Raise UserError where the folder has the file of (file name, text) with another text."""
    if labels is None or not (file := folder / labels[0]).exists():
        return
    if not file.is_file() or file.read_bytes().splitlines() != labels[1].encode("utf-8").splitlines():
        raise UserError(
            f"'{file}' exists and has other labels than the data, or another order: move it away to have it written "
            "anew, or give another --workdir."
        )


def _write_labels(folder: Path, labels: tuple[str, str] | None) -> None:
    """(file name, text) into the folder, unless the file is there."""
    if labels is None or (file := folder / labels[0]).exists():
        return
    with whole.replacing(file) as temporary:
        temporary.write_text(labels[1], encoding="utf-8")


def _encode(dataset: Preparable, index: int, settings: Settings) -> tuple[bytes, BadEntry | None]:
    """(the bytes to store, None), or as much as there is and what is wrong with it."""
    data: Any = b""
    place = f"Entry '{dataset.source.key(index)}' of '{dataset.source.path}'"
    try:
        data = dataset.source[index]
        if isinstance(data, np.ndarray):
            image = transforms.to_channels(data, 3)
        else:
            image = decode(data, place=place)
        if isinstance(data, bytes) and not settings.size and not settings.crop and describe(data)[0] in KEPT_FORMATS:
            return data, None
        if settings.crop:
            image = dataset.to_square(image, place)
        if settings.size:
            image = transforms.resize(image, settings.size)
    except BadEntry as error:
        return data if isinstance(data, bytes) else b"", error
    return encode(image, settings.quality, settings.lossless), None


def encode(image: np.ndarray, quality: int, lossless: bool) -> bytes:
    """uint8 RGB [h, w, 3] as JPEG, colours at full resolution, or as WebP without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    if lossless:
        Image.fromarray(image).save(buffer, "WEBP", lossless=True)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


class _Writer:
    """An LMDB that is filled key by key; what was written survives the end of the process."""

    def __init__(self, path: Path, keys: Sequence[str]):
        import lmdb

        self._path, self._keys = path, keys
        try:
            self._environment = lmdb.open(str(path), map_size=FIRST_MAP_SIZE)
        except lmdb.Error as error:
            raise UserError(f"'{path}' does not open for writing ({error}): is the disk full or read-only?") from error

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: Any) -> None:
        self._environment.close()
        (self._path / "lock.mdb").unlink(missing_ok=True)

    def done(self) -> int:
        """How many of the keys are there; they are written in order."""
        done = min(self._entries(), len(self._keys))  # one entry more is `length`
        if done:
            log.info("Going on after %d of %d images.", done, len(self._keys))
        return done

    def write(
        self, encoded: Iterable[tuple[int, bytes, BadEntry | None]], note: Callable[[int, BadEntry], None]
    ) -> None:
        """Write (index, value, what is wrong with it) in order, and `length` when all are there."""
        chunk: list[tuple[str, bytes]] = []
        last = len(self._keys) - 1
        for index, value, error in encoded:
            if error:
                note(index, error)
            chunk.append((self._keys[index], value))
            if len(chunk) == COMMIT_EVERY or index == last:
                self._append(chunk, first=index + 1 - len(chunk))
                chunk = []
        if self._entries() == len(self._keys):
            self._append([("length", str(len(self._keys)).encode())], first=len(self._keys))

    def _entries(self) -> int:
        return self._environment.stat()["entries"]

    def _append(self, entries: Sequence[tuple[str, bytes]], first: int) -> None:
        """Write all entries or none; `first` is the number of entries before them."""
        import lmdb

        while True:
            try:
                with self._environment.begin(write=True) as txn:
                    if txn.stat()["entries"] != first:
                        raise UserError(f"Another process writes '{self._path}' too: wait for it to end.")
                    for key, value in entries:
                        txn.put(key.encode(), value)
                return
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise UserError(
                    f"'{self._path}' cannot be written ({error}): what was written is kept, the same command goes on."
                ) from error


def checksum(path: Path, keys: list[str], progress: Progress = lambda items, total, what: iter(items)) -> str:
    """SHA-256 of an LMDB's entries: of each key, the length of its value as 8 bytes, and the value."""
    import lmdb

    digest = hashlib.sha256()
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin(buffers=True) as txn:
        for key in progress(map(str.encode, keys), len(keys), "checksum"):
            value = txn.get(key)
            if value is None:
                raise UserError(f"'{path}' has lost '{key.decode()}': delete the folder and prepare it again.")
            digest.update(key + len(value).to_bytes(8, "little"))
            digest.update(value)
    return digest.hexdigest()
