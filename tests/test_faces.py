"""Photos of one's own: faces cropped by their eyes, what is said of other framings, and the tasks that take photos."""

import json

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import faces, framing
from diffrep_jax.data.faces import Face, aligned
from diffrep_jax.errors import UserError
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import base
from tests.task_runs import run_task
from tests.tiny import tiny_config

EYES = np.array([[40.0, 50.0], [60.0, 50.0]])
# Where the eyes are on average, in pixels: in FFHQ's images, and in CelebA's aligned ones, of which 128 pixels from
# (25, 57) on are used.
PUBLISHED = {"ffhq": (1024, [(385, 480), (640, 480)]), "celeba": (128, [(69.4 - 25, 54.2), (107.6 - 25, 54.2)])}


def dotted(eyes, shape=(100, 120)):
    """A black photo with a white dot of three pixels at each eye."""
    photo = np.zeros((*shape, 3), np.uint8)
    for x, y in np.asarray(eyes).round().astype(int):
        photo[y - 1 : y + 2, x - 1 : x + 2] = 255
    return photo


def dots(image):
    """(x, y) of the middle of the bright pixels in the left and in the right half, in parts of the side."""
    size = len(image)
    rows, columns = np.nonzero(image[:, :, 0] > 80)
    halves = [columns < size / 2, columns >= size / 2]
    return np.array([[(columns[half].mean() + 0.5) / size, (rows[half].mean() + 0.5) / size] for half in halves])


@pytest.mark.parametrize("name", sorted(faces.GEOMETRIES))
@pytest.mark.parametrize("turned", [0, 30, -100])
def test_the_eyes_come_to_lie_where_the_data_sets_have_them(name, turned):
    angle = np.deg2rad(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    eyes = (EYES - (50, 50)) @ turn.T + (50, 50)
    crop = aligned(dotted(eyes), eyes + 0.5, faces.GEOMETRIES[name], 128)  # 0.5: the middle of a pixel
    size, published = PUBLISHED[name]
    np.testing.assert_allclose(dots(crop), np.array(published) / size, atol=0.015)


def test_a_photo_that_is_cropped_already_comes_back():
    """At the size at which the eyes are where FFHQ has them, the crop is the photo."""
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    down = 0.11 * 32
    crop = aligned(photo, np.array([[48, 64 - down], [80, 64 - down]]), faces.FFHQ, 128)
    assert np.abs(crop.astype(int) - photo).mean() < 8  # the halves of pixels at edges
    grey = aligned(photo[:, :, :1], np.array([[48, 64 - down], [80, 64 - down]]), faces.FFHQ, 64)
    assert grey.shape == (64, 64, 1)


def test_a_large_photo_is_averaged_and_what_lies_beyond_its_edge_is_mirrored():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    crop = aligned(noise, np.array([[150.0, 190.0], [250.0, 190.0]]), faces.FFHQ, 16)
    assert np.abs(crop.astype(float) - 127.5).max() < 25  # 25 x 25 pixels each: 3 is a deviation
    beyond = aligned(np.full((50, 50, 3), 200, np.uint8), np.array([[1.0, 1.0], [40.0, 3.0]]), faces.FFHQ, 32)
    assert (beyond == 200).all()


@pytest.mark.parametrize(
    ("eyes", "message"),
    [
        ([[5, 5], [5, 5]], "are no two points: give .x, y. of each"),
        ([[5, 5], [np.nan, 5]], "are no two points"),
        ([[5, 5], [121, 5]], "out of the photo, which has 120 x 100 pixels"),
    ],
)
def test_eyes_that_cannot_be_are_refused(eyes, message):
    with pytest.raises(UserError, match=message):
        aligned(dotted(EYES), np.array(eyes, float), faces.FFHQ, 8)


@pytest.fixture
def seen(monkeypatch):
    """A detector in the place of OpenCV's: {width of a photo: its face}."""
    known = {}
    monkeypatch.setattr(faces, "detector", lambda: lambda photo: known.get(photo.shape[1]))
    return known


@pytest.fixture
def photos(tmp_path):
    """A folder with a square photo, a wide one, and a small one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("a", (100, 100)), ("b", (100, 120)), ("c", (60, 60))):
        Image.fromarray(dotted(np.minimum(EYES, 55), shape)).save(folder / f"{name}.png")
    return folder


def align(out, paths, data="ffhq", **settings):
    config = tiny_config()
    with config.unlocked():
        config.data.name = data
    return base.build("align", settings, paths).run(None, Run.at(out, config))


def test_align_writes_a_folder_of_crops(tmp_path, photos, seen):
    seen |= {100: Face(50, EYES), 120: Face(40, None)}
    assert align(tmp_path, {"images": photos}) == {"photos": 3, "aligned": 1}
    (crop,) = (tmp_path / "align" / "images").iterdir()
    assert crop.name == "0000_a.png" and Image.open(crop).size == (8, 8)
    assert json.loads((tmp_path / "align" / "metrics.json").read_text())["geometry"] == "ffhq"
    assert align(tmp_path, {"images": photos / "b.png"}, "celeba", eyes=(40, 50, 60, 50))["aligned"] == 1
    assert [path.name for path in (tmp_path / "align" / "images").iterdir()] == ["0000_b.png"]
    assert json.loads((tmp_path / "align" / "metrics.json").read_text())["geometry"] == "celeba"


@pytest.mark.parametrize(
    ("settings", "file", "message"),
    [
        ({}, None, "--task=align needs photos: add --images=PHOTO"),
        ({}, "c.png", "No face from the front with both eyes in .*give them: --images=ONE_PHOTO"),
        ({"eyes": (1, 2, 3, 4)}, "", "eyes are those of one photo; .* has 3"),
        ({"eyes": (1, 2)}, "a.png", "tasks.align.eyes has 2 numbers; write .x,y,x,y."),
        ({"geometry": "lfw"}, "a.png", "Unknown geometry 'lfw'"),
    ],
)
def test_what_cannot_be_aligned_is_refused_in_one_line(tmp_path, photos, seen, settings, file, message):
    with pytest.raises(UserError, match=message) as caught:
        align(tmp_path, {"images": None if file is None else photos / file}, **settings)
    assert "\n" not in str(caught.value)


def test_without_opencv_one_line_says_what_to_install(tmp_path, photos, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffrep_jax.data.face_cascades", None)
    assert faces.detector() is None
    with pytest.raises(UserError, match=r"pip install 'diffrep_jax\[faces\]'; or give those of one photo"):
        align(tmp_path, {"images": photos})


def test_opencv_sees_no_face_in_noise():
    pytest.importorskip("cv2", reason="the extra [faces]")
    largest = pytest.importorskip("diffrep_jax.data.face_cascades", exc_type=ImportError).largest
    assert largest(np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)) is None
    assert largest(np.full((40, 40, 1), 128, np.uint8)) is None


def contents(folder):
    return [(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def test_other_framings_are_named(photos, seen, caplog):
    seen |= {100: Face(60, EYES), 120: Face(20, EYES)}
    wide = "1 of 3 photos are not square, such as b.png (120 x 100): only the square in the middle is used."
    lines = framing.warn(contents(photos), "ffhq")
    assert [line.partition(" Crop")[0].partition(" The model")[0] for line in lines] == [
        wide,
        "1 of 3 photos have a small face, such as b.png.",
        "1 of 3 photos show no face from the front that is seen by a simple detector, such as c.png. See docs/data.md.",
    ]
    assert all("--task=align" in line for line in lines[:2]) and lines == [record.message for record in caplog.records]
    assert framing.warn(contents(photos), "digits") == [f"{wide} Crop them as the images of 'digits' are."]
    (photos / "b.png").unlink()
    assert framing.warn([*contents(photos), ("x.png", b"no image")], "digits") == []


def test_tasks_take_photos_in_place_of_the_split(tiny_model, tmp_path, photos, caplog):
    Image.fromarray(dotted(EYES)[:99, :99]).save(photos / "d.png")
    numbers, out = run_task("reconstruct", tiny_model, tmp_path, {"images": photos})
    known = json.loads((out / "metrics.json").read_text())
    assert (known["images"], known["dataset"], known["split"]) == (4, "folder", "all") and numbers["mse"] >= 0
    assert "1 of 4 photos are not square, such as b.png" in caplog.text and "only 4" not in caplog.text
    third = np.load(out / "arrays.npz")["images"][2]
    for task in ("interpolate", "counterfactual"):
        chosen = base.build(task, {"first": "2", "second": "4"}, {"images": photos})
        np.testing.assert_array_equal(chosen.image("first", tiny_model, tiny_config()), third)
        with pytest.raises(UserError, match="There is no image 4: '.*photos' has 4, from 0 on"):
            chosen.image("second", tiny_model, tiny_config())
    alone = base.build("reconstruct", {}, {"images": photos / "c.png"}).open_images(tiny_config())
    assert len(alone) == 1
    np.testing.assert_array_equal(alone[0]["image"], third)


def test_single_files_are_looked_at_too(tiny_model, tmp_path, photos, caplog):
    run_task("interpolate", tiny_model, tmp_path, first=str(photos / "b.png"), second="0", points=4)
    assert "1 of 1 photos are not square" in caplog.text


def test_photos_and_a_head_in_a_file_need_no_data_set(tmp_path, photos):
    """The small weights of emoji: their data set is not here."""
    from diffrep_jax.inference.open import open_run
    from diffrep_jax.runs import config as run_config

    config = run_config.load("pretrained/dbae_emoji")
    settings = {"head": "pretrained/dbae_emoji/probe/attributes_emoji.npz", "attribute": "man,-woman"}
    model, run = open_run("pretrained/dbae_emoji"), Run.at(tmp_path, config)
    base.build("manipulate", settings, {"images": photos}).check(model, run)
    with pytest.raises(UserError, match="emoji-datasource-google"):
        base.build("manipulate", settings, {}).check(model, run)
