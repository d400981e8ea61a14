"""Images that none can be read of, or too many not: one line says so, and codes that were kept stay as they are."""

import json

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _codes, base
from tests.task_runs import BATCH, kept
from tests.tiny import tiny_config

COUNT = 20


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Grey pictures with a measure; the first of the split test, the tenth of all, is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), np.uint8)):
        Image.fromarray(image).save(folder / f"{i:02d}.bmp")
    (folder / "labels.csv").write_text("\n".join(["file,size", *(f"{i:02d}.bmp,{i}" for i in range(COUNT))]))
    (folder / "09.bmp").write_bytes(b"no image")
    monkeypatch.setenv("DIFFREP_DATA", str(folder))
    return folder


@pytest.fixture
def workdir(tmp_path):
    return kept(tmp_path / "run")


def run(name, model, workdir, bad=0.9, **settings):
    config = tiny_config()
    with config.unlocked():
        config.data.name, config.data.max_bad_fraction = "folder", bad
        config.tasks[name].update(settings)
    return base.build(name, config.tasks[name], {}).run(model, Run.at(workdir, config))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("reconstruct", {"batch_size": BATCH}),
        ("manipulate", {"attribute": "size", "scales": (0.5,), "epochs": 1, "encode_batch_size": BATCH}),
        ("evaluate", {"batch_size": BATCH, "without": ("lpips", "fid")}),
        ("evaluate", {"batch_size": BATCH, "without": ("lpips", "fid"), "counts": (3,)}),
    ],
)
def test_tasks_refuse_an_only_image_that_cannot_be_read(tiny_model, workdir, images, name, settings):
    with pytest.raises(UserError, match="'09.bmp'.* That leaves none of the 1 images asked for"):
        run(name, tiny_model, workdir, num_images=1, **settings)


def test_a_refused_encoding_leaves_codes_that_were_kept(tiny_model, workdir, images):
    path = workdir / "encode" / "folder_train.npz"
    run("encode", tiny_model, workdir, batch_size=18)
    content, lines = path.read_bytes(), json.loads((workdir / "encode" / "metrics.json").read_text())
    for i in range(COUNT):
        (images / f"{i:02d}.bmp").write_bytes(b"no image")
    for bad, message in ((0.99, "6 of 6 images .* cannot be read, which leaves none: "), (0.0, "1 bad of 18 entries")):
        with pytest.raises(UserError, match=message):
            run("encode", tiny_model, workdir, bad, batch_size=18, num_images=6)
        assert path.read_bytes() == content
    assert json.loads((workdir / "encode" / "metrics.json").read_text()) == lines


def test_a_part_without_an_image_that_can_be_read_is_left_out(tiny_model, workdir, images, monkeypatch):
    monkeypatch.setattr(_codes, "PART", 1)
    (images / "00.bmp").write_bytes(b"no image")
    run("encode", tiny_model, workdir, batch_size=1, num_images=3)
    with np.load(workdir / "encode" / "folder_train.npz") as file:
        assert file["rows"].tolist() == [1, 2] and file["attributes"][:, 0].tolist() == [1, 2]


def test_codes_that_are_refused_for_a_lower_limit_stay(tiny_model, workdir, images):
    (images / "00.bmp").write_bytes(b"no image")
    path = workdir / "encode" / "folder_train.npz"
    run("encode", tiny_model, workdir, batch_size=18)
    content = path.read_bytes()
    with pytest.raises(UserError, match="1 of 18 images of .* cannot be read, more than data.max_bad_fraction=0.01"):
        run("encode", tiny_model, workdir, 0.01, batch_size=18)
    assert path.read_bytes() == content
