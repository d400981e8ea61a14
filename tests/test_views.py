"""Views: two of each image, drawn anew; each augmentation does what its name says, as often as published."""

import itertools

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.data import Loading, open_dataset, train_batches, view_batches, views
from tests.made_data import scene

IMAGE = np.asarray(scene(1, 24, 24))
OPTIONS = {"seed": 3, "batch_size": 6, "start_step": 0, "workers": 0}


class Probabilities:
    """Views with only some of the augmentations."""

    def __init__(self, monkeypatch, **chosen):
        for name in ("FLIP", "JITTER", "GREY", "BLUR"):
            monkeypatch.setattr(views, name, chosen.get(name, 0))

    def many(self, count, image=IMAGE):
        rng = np.random.default_rng(0)
        return np.stack([views.view(image, rng) for _ in range(count)])


def changed(many, image=IMAGE):
    return (many != image).any((1, 2, 3))


@pytest.mark.parametrize(("name", "probability"), [("FLIP", 0.5), ("JITTER", 0.8), ("GREY", 0.2), ("BLUR", 0.5)])
def test_each_augmentation_comes_as_often_as_published(monkeypatch, name, probability):
    many = Probabilities(monkeypatch, **{name: getattr(views, name)}).many(600)
    deviation = np.sqrt(probability * (1 - probability) / 600)
    assert abs(changed(many).mean() - probability) < 4 * deviation


def test_without_augmentations_a_view_is_the_image(monkeypatch):
    assert not changed(Probabilities(monkeypatch).many(5)).any()


def test_a_flip_exchanges_left_and_right(monkeypatch):
    np.testing.assert_array_equal(Probabilities(monkeypatch, FLIP=1).many(1)[0], IMAGE[:, ::-1])


def test_grey_is_the_luma_in_all_channels(monkeypatch):
    grey = Probabilities(monkeypatch, GREY=1).many(1)[0]
    for channel in range(3):
        np.testing.assert_array_equal(grey[:, :, channel], np.asarray(Image.fromarray(IMAGE).convert("L")))


def test_blur_keeps_the_mean_and_takes_detail(monkeypatch):
    blurred = Probabilities(monkeypatch, BLUR=1).many(50).astype(float)
    assert np.abs(blurred.mean((1, 2)) - IMAGE.mean((0, 1))).max() < 3
    roughness = np.abs(np.diff(blurred, axis=1)).mean((1, 2, 3))
    assert roughness.max() <= np.abs(np.diff(IMAGE.astype(float), axis=0)).mean()
    assert roughness.min() < 0.8 * roughness.max()  # of several strengths


def test_light_and_colour_reach_the_published_strengths():
    """On one flat colour brightness is a factor, contrast changes nothing, saturation scales the distance to grey."""
    flat = Image.new("RGB", (4, 4), (120, 60, 60))
    rng = np.random.default_rng(0)
    values = np.array([np.asarray(views.jitter(flat, rng))[0, 0] for _ in range(3000)], float) / 255
    brightest = values.max(1) / (120 / 255)
    assert brightest.max() > 1.7 and brightest.min() < 0.3
    spread = (values.max(1) - values.min(1)) / values.max(1)  # HSV's saturation, 0.5 to begin with
    assert spread.max() > 0.8 and spread.min() < 0.2


def test_hues_turn_at_most_by_the_published_part_of_the_circle(monkeypatch):
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    assert views.turn_hue(red, 1 / 3).getpixel((0, 0)) == pytest.approx((0, 255, 0), abs=6)
    assert views.turn_hue(red, -1 / 3).getpixel((0, 0)) == pytest.approx((0, 0, 255), abs=6)
    for name in ("BRIGHTNESS", "CONTRAST", "SATURATION"):
        monkeypatch.setattr(views, name, 0)
    rng = np.random.default_rng(0)
    hues = np.array([views.jitter(red, rng).convert("HSV").getpixel((0, 0))[0] for _ in range(2000)]) / 255
    turns = (hues + 0.5) % 1 - 0.5
    assert 0.18 < np.abs(turns).max() < 0.21
    grey = Image.new("L", (1, 1), 7)
    assert views.turn_hue(grey, 0.2) is grey


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stream_of_views_is_a_function_of_seed_and_number(channels):
    dataset = open_dataset("digits", split="train", image_size=8, channels=channels)
    batches = list(itertools.islice(view_batches(dataset, Loading(**OPTIONS)), 5))
    for batch in batches:
        assert batch.keys() == {"view1", "view2", "label"}
        for view in (batch["view1"], batch["view2"]):
            assert view.shape == (6, 8, 8, channels) and view.dtype == np.uint8
            assert view.min() < view.max()
        assert (batch["view1"] != batch["view2"]).any()
    for options in ({"workers": 2}, {"start_step": 3}, {"workers": 1, "worker_kind": "process"}):
        stream = view_batches(dataset, Loading(**OPTIONS | options))
        again = list(itertools.islice(stream, 5 - options.get("start_step", 0)))
        for a, b in zip(again, batches[options.get("start_step", 0) :], strict=True):
            for key in a:
                np.testing.assert_array_equal(a[key], b[key])


def test_views_come_in_an_order_and_size_of_their_own():
    dataset = open_dataset("digits", split="train", image_size=8, channels=1)
    whole = next(view_batches(dataset, Loading(**OPTIONS)))
    train = next(train_batches(dataset, Loading(**OPTIONS | {"batch_size": 20}), flip=False))
    assert whole["label"].tolist() != train["label"].tolist()[:6]
    loadings = [Loading(process_index=i, process_count=2, **OPTIONS) for i in range(2)]
    parts = [next(view_batches(dataset, loading))["view2"] for loading in loadings]
    np.testing.assert_array_equal(np.concatenate(parts), whole["view2"])


def test_without_augmentations_both_views_are_the_images_in_the_same_order():
    dataset = open_dataset("digits", split="train", image_size=8, channels=1)
    plain = next(view_batches(dataset, Loading(**OPTIONS), augment=False))
    np.testing.assert_array_equal(plain["view1"], plain["view2"])
    assert plain["label"].tolist() == next(view_batches(dataset, Loading(**OPTIONS)))["label"].tolist()
    images = next(train_batches(dataset, Loading(**OPTIONS | {"batch_size": len(dataset)}), flip=False))["image"]
    assert all((view == images).all((1, 2, 3)).any() for view in plain["view1"])


def test_half_the_jitter_reaches_half_as_far():
    """SimSiam's 0.4 of light where SimCLR has 0.8: brightness is at most 1.4 times what it was."""
    flat = Image.new("L", (2, 2), 100)
    rng = np.random.default_rng(0)
    values = np.array([np.asarray(views.jitter(flat, rng, 0.5))[0, 0] for _ in range(2000)]) / 100
    assert 0.59 <= values.min() < 0.62 and 1.38 < values.max() <= 1.41
    assert np.asarray(views.jitter(flat, rng, 0.0)).tolist() == [[100, 100], [100, 100]]
