"""The forms in which people have images: archives at any depth, arrays, one file; what is hostile costs a line."""

import io
import logging
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import image_sets, limits, open_dataset
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.sources import open_source
from diffrep_jax.errors import UserError
from launch import main
from tests.made_data import PEAK, encoded, scene, write_folder, write_lmdb, write_zip
from tests.tiny import ROOT

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 9, 3), np.uint8)
FILES = {f"img{i}.png": encoded(scene(i, 12, 10), "PNG") for i in (1, 2, 10)}


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, value in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            archive.addfile(member, io.BytesIO(value))
    return path


def read(source):
    return {source.key(i): source[i] for i in range(len(source))}


# --- archives


@pytest.mark.parametrize("prefix", ["", "./", "./photos/", "photos/", ".//photos/./"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_archives_are_read_also_where_names_begin_with_a_dot(tmp_path, write, prefix):
    clutter = {"./.hidden/1.png": b"", "__MACOSX/._img1.png": b"", "./._img2.png": b"", "readme.txt": b""}
    path = write(
        tmp_path / ("a.zip" if write is write_zip else "a.tar"), {prefix + k: v for k, v in FILES.items()} | clutter
    )
    source = open_source(path)
    assert list(read(source).values()) == list(FILES.values())
    assert [key.rpartition("/")[2] for key in read(source)] == list(FILES)
    assert not source.key(0).startswith(".")
    again = pickle.loads(pickle.dumps(source))
    assert read(again) == read(source)


def test_names_of_windows_and_names_that_come_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name, value in (("photos\\1.png", b"a"), ("photos\\.x.png", b"b"), ("2.png", b"c"), ("2.png", b"d")):
                archive.writestr(name, value)
    source = open_source(tmp_path / "a.zip")
    assert [source[i] for i in range(3)] == [b"c", b"d", b"a"]


@pytest.mark.parametrize("form", ["zip", "tar", "npz", "lmdb"])
def test_what_holds_images_lies_at_any_depth(tmp_path, form):
    folder = (
        write_folder(tmp_path / "all", {"readme.txt": b"", "data/notes.md": b"", "data/raw/x.json": b""})
        / "data"
        / "raw"
    )
    if form == "zip":
        write_zip(folder / "a.zip", FILES)
    elif form == "tar":
        write_tar(folder / "a.tar", FILES)
    elif form == "npz":
        np.savez(folder / "a.npz", PIXELS)
    else:
        write_lmdb(folder / "mine", "256-%05d", list(FILES.values()))
    assert open_source(tmp_path).kind == form


def test_more_than_one_at_any_depth_is_refused_with_their_names(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a", "b"):
        write_lmdb(tmp_path / "deep" / name, "256-%05d", list(FILES.values()))
    with pytest.raises(UserError, match="only deep/a, deep/b in .*: give the LMDB that is meant"):
        open_source(tmp_path)


def test_a_compressed_tar_says_how_to_unpack_it(tmp_path):
    write_tar(tmp_path / "lfw-funneled.tgz", FILES, "w:gz")
    with pytest.raises(UserError, match="lfw-funneled.tgz' is compressed, .*: unpack it with 'tar -xf'"):
        open_dataset("lfw", split="all", image_size=8, channels=3, data_dir=tmp_path)


# --- arrays and single files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_is_a_source(tmp_path, save):
    save(tmp_path / "samples_7x6x9x3.npz", PIXELS, np.arange(7))  # arr_0 and arr_1: as guided-diffusion's script does
    np.save(tmp_path / "a.npy", PIXELS)
    for path in (tmp_path / "samples_7x6x9x3.npz", tmp_path / "a.npy"):
        source = pickle.loads(pickle.dumps(open_source(path)))
        np.testing.assert_array_equal(np.stack([source[i] for i in range(7)]), PIXELS)
        parts = image_sets.batches(image_sets.open_images(path, ("samples", "images")), 4, 100)
        np.testing.assert_array_equal(np.concatenate(list(parts)), PIXELS)
        grey = open_dataset("folder", split="all", image_size=6, channels=1, data_dir=path)
        luma = Image.fromarray(PIXELS[3]).convert("L").crop((2, 0, 8, 6))
        np.testing.assert_array_equal(grey[3]["image"][:, :, 0], np.asarray(luma))


def test_an_array_is_prepared_as_an_lmdb(tmp_path):
    np.savez(tmp_path / "a.npz", PIXELS)
    command = ["--config=configs/dbae_folder.py", "--task=prepare", f"--data_dir={tmp_path / 'a.npz'}"]
    settings = ["--config.tasks.prepare.size=6", "--config.tasks.prepare.lossless=True"]
    main.main([*command, f"--workdir={tmp_path / 'out'}", *settings])
    sets = (
        open_dataset("folder", split="all", image_size=6, channels=3, data_dir=tmp_path / p) for p in ("a.npz", "out")
    )
    for a, b in zip(*sets, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])


def test_one_image_file_is_a_folder_of_one(tmp_path):
    write_folder(tmp_path, FILES)
    source = open_source(tmp_path / "img2.png")
    assert read(source) == {"img2.png": FILES["img2.png"]}
    (tmp_path / "labels.csv").write_text("file,class\nimg1.png,a\nimg2.png,b\nimg10.png,c\n")
    dataset = open_dataset("folder", split="all", image_size=10, channels=3, data_dir=tmp_path / "img2.png")
    assert dataset[0]["image"].shape == (10, 10, 3)
    assert len(image_sets.open_images(tmp_path / "img2.png", ("images",))) == 1


def test_files_that_are_no_images_are_counted_once(tmp_path, caplog):
    write_folder(tmp_path, FILES | {"a.avif": b"", "b.HEIC": b"", "c.heic": b"", "d.txt": b"", "e": b"", ".f.txt": b""})
    with caplog.at_level(logging.INFO):
        assert len(open_source(tmp_path)) == len(open_source(tmp_path)) == 4
    (line,) = caplog.messages
    assert line.startswith("4 images in") and line.endswith(
        "beside 2 .heic, 1 .txt, 1 without suffix, not read as images."
    )
    write_folder(tmp_path / "none", {"b.HEIC": b"", "c.heic": b""})
    with pytest.raises(UserError, match="no LMDB, .* or image at all in '.*none', which holds 2 .heic: give"):
        open_source(tmp_path / "none")


def test_names_that_are_not_utf8_are_written_out(tmp_path):
    folder = os.fsencode(tmp_path)
    with open(folder + b"/gr\xf6\xdfe.png", "wb") as file:
        file.write(b"no image")
    dataset = open_dataset("folder", split="all", image_size=8, channels=3, data_dir=tmp_path)
    assert dataset.source.key(0) == r"gr\xf6\xdfe.png"
    with pytest.raises(BadEntry, match=r"Entry 'gr.xf6.xdfe.png' of .* does not decode") as caught:
        dataset[0]
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("path", ["x" * 5000, "a\0b", "a/b/c", "file.txt/below"])
def test_paths_that_cannot_be_are_refused(tmp_path, path):
    (tmp_path / "file.txt").touch()
    with pytest.raises(UserError) as caught:
        open_dataset("folder", split="all", image_size=8, channels=3, data_dir=f"{tmp_path}/{path}")
    assert "\n" not in str(caught.value)


def test_home_and_variables_in_paths(tmp_path, monkeypatch):
    write_folder(tmp_path / "pictures", FILES)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PICTURES", "pictures")
    for path in ("~/pictures", "~/$PICTURES", f"{tmp_path}/${{PICTURES}}"):
        assert len(open_dataset("folder", split="all", image_size=8, channels=3, data_dir=path)) == 3


# --- damage and size


@pytest.mark.parametrize("form", ["zip", "tar", "npz", "npy"])
def test_whatever_an_archive_is_the_error_is_one_line(tmp_path, form):
    path = tmp_path / f"a.{form}"
    if form == "zip":
        write_zip(path, FILES)
    elif form == "tar":
        write_tar(path, FILES)
    elif form == "npz":
        np.savez_compressed(path, images=PIXELS)
    else:
        np.save(path, PIXELS)
    whole, rng, read_whole = path.read_bytes(), np.random.default_rng(0), 0
    places = [*range(0, 200), *range(max(0, len(whole) - 300), len(whole))]
    for number in range(200):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            data[rng.choice(places) % len(data)] = rng.integers(256)
        path.write_bytes(data if number % 3 else data[: rng.integers(0, len(data))])
        try:
            source = open_source(path)
            for i in range(min(len(source), 20)):
                source[i]
            read_whole += 1
        except UserError as error:  # a BadEntry is one
            assert str(path) in str(error) and "\n" not in str(error)
        try:
            list(image_sets.batches(image_sets.open_images(path, ("images",)), 4, 20))
        except UserError as error:
            assert "\n" not in str(error)
    assert read_whole < 190


def test_images_of_too_many_bytes_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "_used", [limits.Limits(bytes=1000)])
    large = {"1.png": bytes(1001), "2.png": bytes(1000)}
    write_folder(tmp_path / "folder", large)
    write_zip(tmp_path / "a.zip", large)
    write_tar(tmp_path / "a.tar", large)
    write_lmdb(tmp_path / "a.lmdb", "256-%05d", [bytes(9000), bytes(100)])
    for name in ("folder", "a.zip", "a.tar", "a.lmdb"):
        source = open_source(tmp_path / name)
        with pytest.raises(BadEntry, match="bytes, more than the 1,000 of config.data.max_bytes"):
            source[0]
        assert len(source[1]) in (100, 1000)


def test_a_zip_that_unpacks_to_gigabytes_takes_no_memory(tmp_path):
    path = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("1.png", "w", force_zip64=True) as file,
    ):
        for _ in range(24):
            file.write(bytes(1 << 20))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (0xFFFFFFF0).to_bytes(4, "little")  # says that it has 4 GB
    path.write_bytes(data)
    script = f"""{PEAK}
import pathlib
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.sources import open_source
source = open_source(pathlib.Path({str(path)!r}))
try:
    source[0]
except BadEntry as error:
    print(peak() < 200_000, error)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("True '1.png' in") and "4,294,967,280 bytes" in done.stdout, done.stderr


def test_pickles_in_arrays_are_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([{"a": 1}], object))
    np.save(tmp_path / "b.npy", np.array([{"a": 1}], object), allow_pickle=True)
    for name in ("a.npz", "b.npy"):
        with pytest.raises(UserError, match="is object .1,.; images are uint8"):
            open_source(tmp_path / name)
    (tmp_path / "c.npz").write_bytes(zlib.compress(b"no zip"))
    with pytest.raises(UserError, match="c.npz is no .npz file"):
        open_source(tmp_path / "c.npz")
