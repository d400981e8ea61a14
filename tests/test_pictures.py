"""Grids and animations: every image is where it belongs, and what is written is what Pillow reads."""

import numpy as np
import pytest
from PIL import Image, ImageSequence

from diffrep_jax.tasks._pictures import enlarge, labelled_grid, save_gif, save_png

RANDOM = np.random.default_rng(0)


def pixels(n, height, width, channels):
    return RANDOM.integers(0, 255, (n, height, width, channels), np.uint8)  # never 255, the colour of the gaps


@pytest.mark.parametrize(
    "height, factor", [(1, 64), (8, 8), (16, 4), (28, 3), (48, 2), (63, 2), (64, 1), (65, 1), (128, 1)]
)
def test_small_images_are_enlarged_by_the_least_whole_factor(height, factor):
    image = pixels(1, height, 5, 3)[0]
    large = enlarge(image)
    assert large.shape == (factor * height, factor * 5, 3) and large.dtype == np.uint8
    for dy, dx in ((0, 0), (factor - 1, factor - 1), (factor // 2, 0)):
        np.testing.assert_array_equal(large[dy::factor, dx::factor], image)


def test_grey_images_become_rgb():
    image = pixels(1, 64, 64, 1)[0]
    np.testing.assert_array_equal(enlarge(image), np.repeat(image, 3, axis=2))


@pytest.mark.parametrize("size, cell", [(8, 64), (28, 84), (100, 100)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_of_a_grid_is_in_its_row_and_column(size, cell, channels):
    rows = {name: pixels(3, size, size, channels) for name in ("x0", "reconstruction")}
    picture = labelled_grid(rows)
    pitch = cell + 4  # two white pixels on each side
    margin = picture.shape[1] - 3 * pitch
    assert picture.shape[0] == 2 * pitch and picture.shape[2] == 3 and picture.dtype == np.uint8
    rest = np.ones(picture.shape[:2], bool)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            y, x = row * pitch + 2, margin + column * pitch + 2
            expected = np.kron(image, np.ones((cell // size, cell // size, 1), np.uint8))
            expected = np.broadcast_to(expected, (cell, cell, 3))
            np.testing.assert_array_equal(picture[y : y + cell, x : x + cell], expected)
            rest[y : y + cell, x : x + cell] = False
    # all else is white, but for the names at the left
    assert np.all(picture[:, margin:][rest[:, margin:]] == 255)


def test_names_stand_left_of_their_rows_and_fit():
    names = ("x0", "a much longer name")
    picture = labelled_grid({name: pixels(1, 64, 64, 3) for name in names})
    margin = picture.shape[1] - 68
    labels = picture[:68, :margin], picture[68:, :margin]
    dark = [np.argwhere(label.min(axis=2) < 128) for label in labels]
    for positions in dark:
        assert len(positions) > 10
        assert abs(positions[:, 0].mean() - 34) < 6  # at the middle of the row
        assert positions[:, 1].min() >= 2 and positions[:, 1].max() <= margin - 2  # not cut
    assert np.ptp(dark[1][:, 1]) > 3 * np.ptp(dark[0][:, 1])


def test_a_shorter_row_is_filled_up_with_white():
    long, short = pixels(4, 64, 64, 3), pixels(1, 64, 64, 3)
    picture = labelled_grid({"a": long, "b": short})
    margin = picture.shape[1] - 4 * 68
    np.testing.assert_array_equal(picture[70:134, margin + 2 : margin + 66], short[0])
    assert np.all(picture[68:, margin + 68 :] == 255)


def test_a_png_is_read_back_as_it_was(tmp_path):
    picture = labelled_grid({"x": pixels(2, 16, 16, 3)})
    save_png(tmp_path / "grid.png", picture)
    with Image.open(tmp_path / "grid.png") as file:
        assert (file.format, file.mode) == ("PNG", "RGB")
        np.testing.assert_array_equal(np.asarray(file), picture)


@pytest.mark.parametrize("count, order", [(1, [0]), (2, [0, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_a_gif_plays_forth_and_back_for_ever(tmp_path, count, order):
    levels = [40 * i for i in range(count)]
    images = [np.full((16, 16, 1), level, np.uint8) for level in levels]
    for level, image in zip(levels, images, strict=True):
        image[:4, :8] = level + 20  # not only one colour a frame
    save_gif(tmp_path / "a.gif", images, milliseconds=80)
    with Image.open(tmp_path / "a.gif") as file:
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)]
        assert len(frames) == len(order)
        if count > 1:
            assert file.info["loop"] == 0 and file.info["duration"] == 80
    for frame, index in zip(frames, order, strict=True):
        np.testing.assert_array_equal(frame, enlarge(images[index]))
