"""Images in folders and .npz files: read as they are, one by one, and what is refused."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import image_sets
from diffrep_jax.errors import UserError
from tests.made_data import encoded, scene, write_folder, write_zip

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 6, 9, 3), np.uint8)


def joined(path, arrays=("images",), batch_size=3, num_images=100):
    return list(image_sets.batches(image_sets.open_images(path, arrays), batch_size, num_images))


def save_folder(path, pixels=PIXELS):
    path.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(path / f"image{i}.png")
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_array_and_a_folder_are_one_set(save, tmp_path):
    save(tmp_path / "set.npz", codes=np.zeros((7, 4)), images=PIXELS)
    for path in (tmp_path / "set.npz", save_folder(tmp_path / "folder")):
        parts = joined(path)
        assert [len(part) for part in parts] == [3, 3, 1] and parts[0].dtype == np.uint8
        np.testing.assert_array_equal(np.concatenate(parts), PIXELS)
        assert len(image_sets.open_images(path, ("images",))) == 7
        np.testing.assert_array_equal(np.concatenate(joined(path, num_images=4)), PIXELS[:4])


def test_an_image_after_those_that_are_asked_for_is_not_read(tmp_path):
    path = save_folder(tmp_path / "folder", PIXELS[:3])
    (path / "image3.png").write_bytes(b"no picture")
    np.testing.assert_array_equal(np.concatenate(joined(path, num_images=3)), PIXELS[:3])


def test_a_zip_is_in_the_order_of_its_names(tmp_path):
    images = {f"{i}.png": scene(i, 20, 12) for i in (10, 9, 2)}
    path = write_zip(tmp_path / "images.zip", {name: encoded(image, "PNG") for name, image in images.items()})
    rows = np.concatenate(joined(path))
    for got, name in zip(rows, ("2.png", "9.png", "10.png"), strict=True):
        np.testing.assert_array_equal(got, np.asarray(images[name]))


def test_the_first_of_the_names_is_taken(tmp_path):
    np.savez(tmp_path / "set.npz", images=PIXELS, reconstructions=255 - PIXELS)
    np.testing.assert_array_equal(joined(tmp_path / "set.npz", ("reconstructions", "images"))[0], 255 - PIXELS[:3])


def test_mixed_sizes_are_refused(tmp_path):
    folder = write_folder(
        tmp_path / "mixed", {f"{i}.png": encoded(scene(i, 20 + (i == 3), 12), "PNG") for i in range(5)}
    )
    with pytest.raises(UserError, match=r"mixed mixes sizes: 20x12, and 21x12 at '3.png'"):
        joined(folder)
    assert len(joined(folder, num_images=3)) == 1  # as far as they are one size


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"codes": PIXELS}, "set.npz holds codes, none of samples, images; rename"),
        ({"images": PIXELS.astype(np.float32)}, r"'images' of .*set.npz is float32 \(7, 6, 9, 3\)"),
        ({"images": PIXELS[0]}, r"uint8 \(6, 9, 3\); images are uint8 \[n, h, w, 1 or 3\]"),
        ({"images": np.asfortranarray(PIXELS)}, "images are uint8"),
        ({"images": np.array([object()])}, "object"),
    ],
)
def test_arrays_that_are_no_images_are_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UserError, match=message):
        image_sets.open_images(tmp_path / "set.npz", ("samples", "images"))


def test_files_that_are_missing_damaged_or_cut_short_are_refused(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        joined(tmp_path / "nowhere")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(UserError, match="text.npz is no .npz file that can be read"):
        joined(tmp_path / "text.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"):
        joined(tmp_path / "folder")
    write_folder(tmp_path / "bad", {"a.png": b"no picture"})
    with pytest.raises(UserError, match="'a.png' of .*bad does not decode"):
        joined(tmp_path / "bad")


def test_an_array_is_not_read_at_once(tmp_path):
    np.savez(tmp_path / "large.npz", images=np.zeros((4000, 32, 32, 3), np.uint8))  # 12 MB
    tracemalloc.start()
    count = sum(
        len(batch)
        for batch in image_sets.batches(image_sets.open_images(tmp_path / "large.npz", ("images",)), 10, 4000)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 4000 and peak < 2e6
