"""prepare and inspect_data: DiffAE's layout from any source, resumed after a kill, nothing overwritten; what is bad."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import open_dataset
from diffrep_jax.data import prepare as engine
from diffrep_jax.data.sources import open_source
from diffrep_jax.errors import UserError
from launch import main
from tests.made_data import encoded, scene, small_images, write_folder, write_lmdb, write_zip
from tests.tiny import ROOT


def prepare(data_dir, workdir, config="dbae_ffhq", **settings):
    overrides = [f"--config.tasks.prepare.{name}={value}" for name, value in settings.items()]
    return launch("prepare", data_dir, workdir, config, *overrides)


def launch(task, data_dir, workdir, config, *overrides):
    paths = [f"--data_dir={data_dir}", f"--workdir={workdir}"]
    main.main([f"--config=configs/{config}.py", f"--task={task}", *paths, *overrides])


def entries(path):
    """All that is in an LMDB, read by the library alone."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as txn:
        return {key.decode(): bytes(value) for key, value in txn.cursor()}


def pictures(folder, count=12, size=(70, 90), name="img{}.png"):
    return write_folder(folder, {name.format(i): encoded(scene(i, *size), "PNG") for i in range(count)})


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def decoded(value):
    return np.asarray(Image.open(io.BytesIO(value)))


# --- what is written


@pytest.mark.parametrize(
    ("config", "size", "keys", "file"),
    [
        ("dbae_ffhq", 256, "256-%05d", "ffhq256.lmdb"),
        ("dbae_celebahq", 128, "128-%05d", "celebahq128.lmdb"),
        ("dbae_bedroom", 16, "16-%07d", "bedroom16.lmdb"),
        ("dbae_horse", 0, "None-%07d", "horse.lmdb"),
        ("dbae_celeba", 0, "None-%07d", "celeba.lmdb"),
    ],
)
def test_the_layout_is_that_of_diffae(tmp_path, config, size, keys, file):
    prepare(pictures(tmp_path / "raw ä", size=(178, 218)), tmp_path / "out", config, size=size)
    written = entries(tmp_path / "out" / file)
    assert list(written) == [*(keys % i for i in range(12)), "length"]
    assert written["length"] == b"12"
    assert sorted(os.listdir(tmp_path / "out")) == sorted([file, "manifest.json"])
    assert os.listdir(tmp_path / "out" / file) == ["data.mdb"]
    shape = (size, size, 3) if size else (218, 178, 3)
    assert {decoded(written[keys % i]).shape for i in range(12)} == {shape}


@pytest.mark.parametrize("form", ["folder", "zip", "lmdb"])
def test_pixels_are_pillows_resize_and_centre(tmp_path, form):
    values = [encoded(scene(i, 70, 90), "PNG") for i in range(5)]
    raw = tmp_path / "raw"
    raw.mkdir()
    if form == "folder":
        write_folder(raw, {f"{i}.png": value for i, value in enumerate(values)})
    elif form == "zip":
        write_zip(raw / "images.zip", {f"x/{i}.png": value for i, value in enumerate(values)})
    else:
        write_lmdb(raw / "raw.lmdb", "1024-%05d", values)
    prepare(raw, tmp_path / "out", size=35, lossless=True)
    written = entries(tmp_path / "out" / "ffhq35.lmdb")
    for i, value in enumerate(values):
        small = Image.open(io.BytesIO(value)).resize((35, 45), Image.Resampling.BILINEAR).crop((0, 5, 35, 40))
        stored = Image.open(io.BytesIO(written[f"35-{i:05d}"]))
        assert stored.format == "WEBP"
        np.testing.assert_array_equal(np.asarray(stored), np.asarray(small))
    dataset = open_dataset("ffhq", split="all", image_size=35, channels=3, data_dir=tmp_path / "out")
    np.testing.assert_array_equal(dataset[4]["image"], np.asarray(small))


def test_quality_is_that_of_pillows_jpeg(tmp_path):
    raw = pictures(tmp_path / "raw", 3)
    for quality in (30, 95):
        prepare(raw, tmp_path / str(quality), "dbae_horse", size=0, crop=False, quality=quality)  # PNG: kept
        prepare(raw, tmp_path / f"small {quality}", "dbae_horse", size=40, quality=quality)
    kept = entries(tmp_path / "30" / "horse.lmdb")
    assert [kept[f"None-{i:07d}"] for i in range(3)] == [(raw / f"img{i}.png").read_bytes() for i in range(3)]
    sizes = [len(entries(tmp_path / f"small {q}" / "horse40.lmdb")["40-0000000"]) for q in (30, 95)]
    assert sizes[0] < 0.6 * sizes[1]


def test_formats_that_the_layout_lacks_are_written_anew(tmp_path):
    write_folder(tmp_path / "raw", {f"{i}.bmp": encoded(scene(i, 20, 20), "BMP") for i in range(3)})
    prepare(tmp_path / "raw", tmp_path / "out", size=0, lossless=True)
    np.testing.assert_array_equal(decoded(entries(tmp_path / "out" / "ffhq.lmdb")["None-00002"]), scene(2, 20, 20))


def test_the_published_crop(tmp_path, capsys):
    raw = write_folder(tmp_path / "raw", {f"{i}.png": encoded(scene(i, 178, 218), "PNG") for i in range(4)})
    prepare(raw, tmp_path / "out", "dbae_celeba", size=64, crop=True, lossless=True)
    face = scene(2, 178, 218).crop((25, 57, 153, 185)).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decoded(entries(tmp_path / "out" / "celeba64.lmdb")["64-0000002"]), np.asarray(face))
    raw_pixels, prepared = (
        open_dataset("celeba", split="train", image_size=64, channels=3, data_dir=path)[0]["image"]
        for path in (raw, tmp_path / "out")
    )
    np.testing.assert_array_equal(raw_pixels, prepared)


def test_the_manifest_says_what_and_from_where(tmp_path):
    raw = pictures(tmp_path / "raw")
    prepare(raw, tmp_path / "out", size=16)
    found = manifest(tmp_path / "out")
    digest = hashlib.sha256()
    for key, value in entries(tmp_path / "out" / "ffhq16.lmdb").items():
        if key != "length":
            digest.update(key.encode() + len(value).to_bytes(8, "little") + value)
    assert found == {
        "dataset": "ffhq",
        "lmdb": "ffhq16.lmdb",
        "source": {"kind": "folder", "path": str(raw), "images": 12, "fingerprint": open_source(raw).fingerprint()},
        "settings": {"size": 16, "crop": False, "quality": 95, "lossless": False},
        "complete": True,
        "count": 12,
        "bad": [],
        "sha256": digest.hexdigest(),
    }


# --- labels


def test_attributes_go_along_in_the_order_of_the_lmdb(tmp_path):
    files = {f"{i:06d}.jpg": value for i, value in enumerate(small_images("celeba", 6), start=1)}
    raw = write_folder(tmp_path / "raw" / "img_align_celeba", files).parent
    signs = np.random.default_rng(0).choice([-1, 1], (6, 40))
    rows = [f"{name}  {' '.join(map(str, row))}" for name, row in zip(reversed(files), signs, strict=True)]
    heading = " ".join(f"Trait_{j}" for j in range(40))
    (raw / "list_attr_celeba.txt").write_text("\n".join(["6", heading, *rows]) + "\n")
    prepare(raw, tmp_path / "out", "dbae_celeba")
    request = {"split": "test", "image_size": 8, "channels": 3, "attributes": True}
    before, after = (open_dataset("celeba", data_dir=path, **request) for path in (raw, tmp_path / "out"))
    assert after.source.kind == "lmdb" and after.attribute_names == tuple(heading.split())
    np.testing.assert_array_equal(before[0]["attributes"], after[0]["attributes"])
    np.testing.assert_array_equal(after[0]["attributes"], signs[6 - 1 - after.entries[0]] > 0)


def test_labels_csv_goes_along(tmp_path):
    raw = pictures(tmp_path / "raw", 4)
    (raw / "labels.csv").write_text("name,kind,age\nimg3.png,cat,3\nimg0.png,dog,0\nimg1.png,dog,1\nimg2.png,cat,2.5\n")
    launch("prepare", raw, tmp_path / "any", "dbae_ffhq", "--config.data.name=folder", "--config.tasks.prepare.size=16")
    dataset = open_dataset("folder", split="all", image_size=16, channels=3, data_dir=tmp_path / "any", attributes=True)
    assert dataset.source.kind == "lmdb" and dataset.class_names == ("cat", "dog")
    assert [(example["label"], example["attributes"].tolist()) for example in dataset] == [
        (1, [0.0]),
        (1, [1.0]),
        (0, [2.5]),
        (0, [3.0]),
    ]


# --- resume, refusal


SCRIPT = """
import sys, time
from diffrep_jax.data import prepare
prepare.COMMIT_EVERY = 7
encode = prepare.encode
prepare.encode = lambda *arguments: (time.sleep(0.01), encode(*arguments))[1]
from launch import main
print("ready", flush=True)
main.main(sys.argv[1:])
"""


def test_a_kill_costs_nothing_that_was_written(tmp_path):
    """Five kills at random moments; the result equals, entry for entry, that of an undisturbed run."""
    raw = pictures(tmp_path / "raw", 150, size=(20, 24))
    prepare(raw, tmp_path / "whole", size=16)
    out = tmp_path / "killed"
    command = ["--config=configs/dbae_ffhq.py", "--task=prepare", f"--data_dir={raw}", f"--workdir={out}"]
    command += ["--config.tasks.prepare.size=16", "--config.tasks.prepare.workers=2"]
    process_of = [sys.executable, "-c", SCRIPT, *command]
    rng = np.random.default_rng(0)
    partial, counts = out / "ffhq16.lmdb.partial", [0]
    for _ in range(5):
        process = subprocess.Popen(process_of, cwd=ROOT, stdout=subprocess.PIPE)
        deadline = time.time() + 60
        while time.time() < deadline and written(partial) <= counts[-1]:  # wait for progress, then a random while
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        counts.append(written(partial))
        assert not (out / "ffhq16.lmdb").exists() and not manifest(out)["complete"]
    assert counts == sorted(set(counts)), "each run went on from the one before"
    kept = entries(partial)
    done = subprocess.run(process_of, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"Going on after {counts[-1]} of 150 images" in done.stdout
    result = entries(out / "ffhq16.lmdb")
    assert kept.items() <= result.items()
    assert result == entries(tmp_path / "whole" / "ffhq16.lmdb")
    assert manifest(out)["sha256"] == manifest(tmp_path / "whole")["sha256"]
    assert not partial.exists()


def written(path):
    """The number of entries of an LMDB that another process may be writing."""
    if not (path / "data.mdb").exists() or (path / "data.mdb").stat().st_size == 0:
        return 0
    try:
        with lmdb.open(str(path), readonly=True, lock=False) as environment:
            return environment.stat()["entries"]
    except lmdb.Error:
        return 0


def test_a_complete_one_is_left_alone(tmp_path):
    raw = pictures(tmp_path / "raw")
    prepare(raw, tmp_path / "out", size=16)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    prepare(raw, tmp_path / "out", size=16)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_kill_between_the_last_image_and_the_manifest_is_mended(tmp_path):
    raw = pictures(tmp_path / "raw")
    prepare(raw, tmp_path / "out", size=16)
    whole = manifest(tmp_path / "out")
    for moved in (False, True):
        (tmp_path / "out" / "manifest.json").write_text(json.dumps(whole | {"complete": False, "sha256": ""}))
        if moved:
            os.rename(tmp_path / "out" / "ffhq16.lmdb", tmp_path / "out" / "ffhq16.lmdb.partial")
        prepare(raw, tmp_path / "out", size=16)
        assert manifest(tmp_path / "out") == whole


def test_labels_that_were_cut_off_are_written_anew(tmp_path, monkeypatch):
    """Half a file would be taken for the user's own, and refused."""
    labels, plain = ("labels.csv", "name,age\nimg0.png,0\nimg1.png,1\n"), Path.write_text

    def cut(path, text, **how):
        plain(path, text[: len(text) // 2], **how)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", cut)
        engine._write_labels(tmp_path, labels)
    engine._write_labels(tmp_path, labels)
    assert (tmp_path / "labels.csv").read_text() == labels[1]


def test_other_data_are_not_overwritten(tmp_path):
    raw, other = pictures(tmp_path / "raw"), pictures(tmp_path / "other", 3)
    out = tmp_path / "out"
    prepare(raw, out, size=16)
    (tmp_path / "foreign" / "ffhq16.lmdb").mkdir(parents=True)
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "manifest.json").write_text('{"name": "a web app"}')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for data_dir, workdir, settings, message in (
        (raw, out, {"size": 32}, "holds other data, lmdb"),
        (raw, out, {"size": 16, "quality": 90}, 'settings: .*"quality": 95.*"quality": 90'),
        (other, out, {"size": 16}, "source: .*12.*3"),
        (raw, tmp_path / "foreign", {"size": 16}, "exists and has no manifest.json"),
        (raw, tmp_path / "json", {"size": 16}, "is not the manifest of an LMDB"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(data_dir, workdir, **settings)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_labels_of_others_and_the_images_own_folder_are_refused_before_anything_is_written(tmp_path):
    raw, out = pictures(tmp_path / "raw" / "images").parent, tmp_path / "out"
    (raw / "labels.csv").write_text("file,age\n" + "".join(f"img{i}.png,{i}\n" for i in range(12)))
    out.mkdir()
    (out / "labels.csv").write_bytes("file,größe\n".encode("latin-1"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for data_dir, workdir, message in (
        (raw, out, "labels.csv' exists and has other labels"),
        (raw, raw, "is the folder of the images themselves"),
        (raw / "images", raw / "images", "is the folder of the images themselves: give another --workdir"),
    ):
        with pytest.raises(UserError, match=message):
            launch("prepare", data_dir, workdir, "dbae_folder", "--config.tasks.prepare.size=16")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_settings_out_of_range_and_data_without_a_layout_are_refused(tmp_path):
    raw = pictures(tmp_path / "raw")
    for config, settings, message in (
        ("dbae_ffhq", {"size": -1}, "size is -1"),
        ("dbae_ffhq", {"quality": 101}, "quality is 101"),
        ("dbae_ffhq", {"workers": 0}, "workers is 0"),
        ("dbae_ffhq", {"crop": True}, "'ffhq' has no published crop"),
        ("dbae_digits", {}, "'digits' is not read from an LMDB"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(raw, tmp_path / "out", config, **settings)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="'.*file' cannot be written"):
        prepare(raw, tmp_path / "file", size=16)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_lmdb_outgrows_its_first_size(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "FIRST_MAP_SIZE", 1 << 17)
    monkeypatch.setattr(engine, "COMMIT_EVERY", 5)
    prepare(pictures(tmp_path / "raw", 30, size=(100, 100)), tmp_path / "out", size=0)
    written = entries(tmp_path / "out" / "ffhq.lmdb")
    assert len(written) == 31 and sum(map(len, written.values())) > 3 << 17


# --- bad images


def spoiled(folder, count=20):
    """Images of which 4 and 11 do not decode."""
    pictures(folder, count, size=(30, 20))
    (folder / "img4.png").write_bytes(b"junk")
    (folder / "img11.png").write_bytes((folder / "img11.png").read_bytes()[:80])
    return folder


def test_bad_images_keep_their_place_and_are_left_out_when_read(tmp_path, caplog):
    raw = spoiled(tmp_path / "raw")
    with pytest.raises(UserError, match="img4.png.* 1 bad of 20 entries"):
        prepare(raw, tmp_path / "out", size=16)
    launch(
        *("prepare", raw, tmp_path / "out", "dbae_ffhq", "--config.tasks.prepare.size=16"),
        "--config.data.max_bad_fraction=0.1",
    )
    assert manifest(tmp_path / "out")["bad"] == ["16-00004", "16-00011"]
    values = entries(tmp_path / "out" / "ffhq16.lmdb")
    assert len(values) == 21 and values["16-00004"] == b"junk"
    dataset = open_dataset("ffhq", split="all", image_size=16, channels=3, data_dir=tmp_path / "out")
    expected = scene(12, 30, 20).resize((24, 16), Image.Resampling.BILINEAR).crop((4, 0, 20, 16))
    assert np.abs(dataset[12]["image"].astype(int) - np.asarray(expected)).mean() < 5  # JPEG; others are off by 60
    with pytest.raises(UserError, match="16-00011.*does not decode"):
        dataset[11]


def test_inspect_data_lists_sizes_keys_and_bad_entries(tmp_path, caplog):
    raw = spoiled(tmp_path / "raw")
    write_folder(raw, {"z.jpg": encoded(scene(0, 64, 48).convert("L"), "JPEG")})
    launch("inspect_data", raw, tmp_path / "run", "dbae_ffhq", "--config.tasks.inspect_data.shown=9")
    folder = tmp_path / "run" / "inspect_data"
    found = json.loads((folder / "metrics.json").read_text())
    assert (found["images"], found["inspected"], found["bad"]) == (21, 21, 2)
    assert found["sizes"] == {"30 x 20": 18, "64 x 48": 1}
    assert found["kinds"] == {"PNG RGB": 18, "JPEG L": 1}
    assert found["keys"] == ["img0.png", "z.jpg"]
    lines = (folder / "bad_entries.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["img4.png", "img11.png"]
    assert all("does not decode" in line for line in lines)
    with Image.open(folder / "contact_sheet.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24)}
    assert len(colours) > 1000  # pictures, not an empty sheet
    launch("inspect_data", raw, tmp_path / "run", "dbae_ffhq", "--config.tasks.inspect_data.num_images=3")
    assert json.loads((folder / "metrics.json").read_text())["inspected"] == 3
    with pytest.raises(UserError, match="shown is 0"):
        launch("inspect_data", raw, tmp_path / "run", "dbae_ffhq", "--config.tasks.inspect_data.shown=0")


def test_inspect_data_of_a_data_set_in_memory(tmp_path):
    launch("inspect_data", tmp_path, tmp_path, "dbae_digits")
    found = json.loads((tmp_path / "inspect_data" / "metrics.json").read_text())
    assert (found["images"], found["bad"], found["sizes"]) == (1797, 0, {"8 x 8": 1797})
    assert found["class_names"] == [str(i) for i in range(10)]
