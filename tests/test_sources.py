"""Sources: what a path is, is found out; files come in natural order; images of all kinds come as users expect."""

import io
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import Loading, open_dataset, ordered_batches, train_batches
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.sources import natural_order, open_source
from diffrep_jax.errors import UserError
from tests.made_data import encoded, scene, small_images, write_fashion, write_folder, write_lmdb, write_zip
from tests.tiny import ROOT


def keys(source):
    return [source.key(i) for i in range(len(source))]


# --- order, and what counts as an image


def test_natural_order():
    names = ["img10.png", "img2.png", "img2", "2.png", "10.png", "a1/1.png", "img02.png", "x", "ü2", "ü10"]
    in_order = [
        "2.png",
        "10.png",
        "a1/1.png",
        "img2",
        "img02.png",
        "img2.png",
        "img10.png",
        "x",
        "ü2",
        "ü10",
    ]
    assert sorted(names, key=natural_order) == in_order
    assert sorted(reversed(names), key=natural_order) == in_order


def test_a_folder_follows_links_once_and_skips_what_is_hidden(tmp_path):
    root = write_folder(tmp_path / "root", {"b/1.JPG": b"", "b/.hidden/2.jpg": b"", ".x.jpg": b"", "notes.txt": b""})
    elsewhere = write_folder(tmp_path / "else where", {"3.webp": b"", "Thumbs.db": b""})
    (root / "c").symlink_to(elsewhere)
    (root / "b" / "loop").symlink_to(root)
    assert keys(open_source(root)) == ["b/1.JPG", "c/3.webp"]
    (tmp_path / "link").symlink_to(root)
    assert keys(open_source(tmp_path / "link")) == ["b/1.JPG", "c/3.webp"]


def test_a_folder_of_ten_thousand_is_in_order(tmp_path):
    for i in range(0, 10_000, 7):
        (tmp_path / f"{i}.png").touch()
    assert keys(open_source(tmp_path)) == [f"{i}.png" for i in range(0, 10_000, 7)]


# --- what a path is


@pytest.mark.parametrize(
    ("holds", "kind"),
    [
        (("usual.lmdb", "other.lmdb", "x.png", "a.zip"), "lmdb usual.lmdb"),
        (("other.lmdb", "x.png", "a.zip"), "lmdb other.lmdb"),
        (("pictures", "other.lmdb"), "folder pictures"),
        (("x.png", "a.zip", "b.zip"), "folder "),
        (("a.zip", "readme.txt"), "zip a.zip"),
    ],
)
def test_a_folder_is_searched_in_a_fixed_order(tmp_path, holds, kind):
    png = encoded(scene(0, 8, 8), "PNG")
    for name in holds:
        if name.endswith("lmdb"):
            write_lmdb(tmp_path / name, "256-%05d", [png])
        elif name.endswith("zip"):
            write_zip(tmp_path / name, {"1.png": png})
        elif name == "pictures":
            write_folder(tmp_path / name, {"1.png": png})
        else:
            (tmp_path / name).write_bytes(png)
    source = open_source(tmp_path, ("usual.lmdb", "pictures"))
    assert f"{source.kind} {source.path.relative_to(tmp_path)}".replace(" .", " ") == kind
    assert source[0] == png


def test_what_holds_no_images_is_refused(tmp_path):
    (tmp_path / "two").mkdir()
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / "two" / name, {"1.png": b""})
    write_zip(tmp_path / "empty.zip", {"readme.txt": b"", "__MACOSX/1.png": b""})
    (tmp_path / "broken.zip").write_bytes((tmp_path / "two" / "a.zip").read_bytes()[:60])
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "x.txt").touch()
    for path, message in (
        ("two", "There is only a.zip, b.zip in .*: give the zip that is meant with --data_dir"),
        ("empty.zip", "holds no images, but 1 .txt:"),
        ("broken.zip", "does not open as a zip"),
        ("text", "no LMDB, zip, tar, npz, TFDS data set or image at all in .*, which holds 1 .txt:"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            open_source(tmp_path / path)
        assert "\n" not in str(caught.value)


# --- zips


def test_a_zip_is_read_by_many_threads(tmp_path):
    values = {f"{i}.png": os.urandom(3000) for i in range(60)}
    source = open_source(write_zip(tmp_path / "größe 1.zip", values))
    wrong = []

    def read():
        for _ in range(20):
            wrong.extend(i for i in range(60) if source[i] != values[f"{i}.png"])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_zip_is_read_after_a_fork(tmp_path):
    write_zip(tmp_path / "a.zip", {f"{i}.png": bytes([i]) * 999 for i in range(9)})
    script = f"""
import os, pathlib, sys
from diffrep_jax.data.sources import open_source
source = open_source(pathlib.Path({str(tmp_path / "a.zip")!r}))
right = lambda: all(source[i] == bytes([i]) * 999 for i in range(9))
assert right()
if child := os.fork():
    assert right()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0 if right() else 7)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_entry_with_a_password_is_a_bad_entry(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.png": b"secret"})
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0 of the flags: encrypted
        data[data.index(signature) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(BadEntry, match="'1.png' in '.*a.zip' cannot be read"):
        open_source(path)[0]


# --- images as users have them


def test_images_of_all_kinds_and_sizes_come_as_expected(tmp_path):
    """One folder of a grey, a transparent, a CMYK, a 16-bit, a palette, a turned, a wide and a tall image."""
    colour = scene(0, 40, 40)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = io.BytesIO()
    colour.save(turned, "JPEG", quality=95, exif=exif)
    clear = colour.copy()
    clear.putalpha(0)
    shades = (np.asarray(colour.convert("L")).astype(np.uint16)) * 257
    files = {
        "a_grey.png": (encoded(colour.convert("L"), "PNG"), colour.convert("L").convert("RGB")),
        "b_clear.png": (encoded(clear, "PNG"), Image.new("RGB", (40, 40), "white")),
        "c_deep.png": (encoded(Image.fromarray(shades), "PNG"), colour.convert("L").convert("RGB")),
        "d_palette.png": (encoded(colour.quantize(256), "PNG"), colour.quantize(256).convert("RGB")),
        "e_turned.jpg": (
            turned.getvalue(),
            Image.open(io.BytesIO(turned.getvalue())).convert("RGB").transpose(Image.Transpose.ROTATE_270),
        ),
        "f_wide.png": (encoded(scene(1, 90, 40), "PNG"), scene(1, 90, 40).crop((25, 0, 65, 40))),
        "g_tall.png": (encoded(scene(2, 40, 90), "PNG"), scene(2, 40, 90).crop((0, 25, 40, 65))),
        "h_cmyk.jpg": (encoded(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), None),
    }
    folder = write_folder(tmp_path / "all kinds", {name: data for name, (data, _) in files.items()})
    dataset = open_dataset("folder", split="all", image_size=40, channels=3, data_dir=folder)
    for example, (name, (_, expected)) in zip(dataset, files.items(), strict=True):
        if expected is None:
            np.testing.assert_allclose(example["image"][20, 20], (255, 0, 0), atol=4)  # red
        else:
            np.testing.assert_array_equal(example["image"], np.asarray(expected), err_msg=name)
    grey = open_dataset("folder", split="all", image_size=40, channels=1, data_dir=folder)
    np.testing.assert_array_equal(
        grey[5]["image"][:, :, 0], np.asarray(scene(1, 90, 40).convert("L").crop((25, 0, 65, 40)))
    )


@pytest.mark.parametrize("form", ["folder", "zip", "lmdb"])
def test_celeba_has_the_same_pixels_from_every_source(tmp_path, form):
    values = small_images("celeba", 11)
    files = {f"{i:06d}.jpg": value for i, value in enumerate(values, start=1)}
    if form == "folder":
        write_folder(tmp_path / "img_align_celeba", files)
    elif form == "zip":
        write_zip(tmp_path / "img_align_celeba.zip", {f"img_align_celeba/{name}": v for name, v in files.items()})
    else:
        write_lmdb(tmp_path / "celeba.lmdb", "None-%07d", values)
    found = []
    for split in ("train", "validation", "test"):
        dataset = open_dataset("celeba", split=split, image_size=64, channels=3, data_dir=tmp_path)
        found += [example["image"] for example in dataset]
    faces = [Image.open(io.BytesIO(value)).crop((25, 57, 153, 185)) for value in values]
    expected = [np.asarray(face.resize((64, 64), Image.Resampling.BILINEAR)) for face in faces]
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_lfw_is_the_middle_at_a_size_that_is_a_tenth_larger(tmp_path):
    write_folder(tmp_path, {"lfw_funneled/Bo/Bo_0001.jpg": encoded(scene(0, 250, 250), "JPEG")})
    image = Image.open(tmp_path / "lfw_funneled" / "Bo" / "Bo_0001.jpg")
    for size, larger, edge in ((64, 70, 3), (128, 140, 6)):
        expected = image.resize((larger, larger), Image.Resampling.BILINEAR).crop(
            (edge, edge, edge + size, edge + size)
        )
        dataset = open_dataset("lfw", split="all", image_size=size, channels=3, data_dir=tmp_path)
        np.testing.assert_array_equal(dataset[0]["image"], np.asarray(expected))


# --- where data lie


def test_a_read_only_folder_is_read_by_train_and_test_at_once(tmp_path):
    values = small_images("any", 20)
    folder = write_folder(tmp_path / "größe 1", {"img/1.png": b""})
    write_lmdb(folder / "ffhq.lmdb", "256-%05d", values)
    for path in (folder / "ffhq.lmdb", folder):
        path.chmod(0o555)
    request = {"image_size": 8, "channels": 3, "data_dir": folder}
    train, test = (open_dataset("ffhq", split=split, **request) for split in ("train", "test"))
    stream = train_batches(train, Loading(seed=0, batch_size=4, start_step=0, workers=2), flip=True)
    counts = [len(next(stream)["image"]) + sum(len(b["image"]) for b in ordered_batches(test, batch_size=4))]
    assert counts == [4 + len(test)]
    fashion = tmp_path / "fashion mnist"
    write_fashion(fashion)
    fashion.chmod(0o555)
    assert len(open_dataset("fashion", split="train", image_size=28, channels=1, data_dir=fashion)) == 20


def test_a_lock_held_at_a_fork_is_free_in_the_child():
    """The thread that held it is not there to let go of it."""
    code = """
import os
from diffrep_jax.data.fork_safe_lock import ForkSafeLock
lock = ForkSafeLock()
with lock:
    child = os.fork()
    if child == 0:
        with lock:
            os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "7", done.stderr
