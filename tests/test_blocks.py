"""Blocks of a code: equal ones of a flat code, counterfactuals by them, images from the first blocks alone."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import diti_celeba, pdae_celeba
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import edit
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _charts, base
from tests.coded_models import opened, small_config

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def pdae():
    return opened(small_config("pdae"))


@pytest.fixture(scope="module")
def diti():
    return opened(small_config("diti"))


def run(name, method, model, out, **settings):
    """(metrics.json, arrays.npz, the folder)."""
    config = small_config(method)
    with config.unlocked():
        config.tasks[name].update({"batch_size": 4} | settings)
    base.build(name, config.tasks[name], {}).run(model, Run.at(out, config))
    with np.load(out / name / "arrays.npz") as arrays:
        return json.loads((out / name / "metrics.json").read_text()), dict(arrays), out / name


# --- equal blocks


def test_equal_blocks_cut_a_code_into_slices_that_cover_it():
    own = np.array([512])
    ends = edit.block_ends(own, 64, "blocks")
    np.testing.assert_array_equal(np.diff([0, *ends]), np.full(64, 8))
    assert edit.block_dimensions(ends, 2, 4) == slice(16, 48)  # the first published range
    np.testing.assert_array_equal(edit.block_ends(own, 0, "blocks"), own)


@pytest.mark.parametrize("blocks", [5, 513, -1])
def test_blocks_that_do_not_divide_a_code_are_refused(blocks):
    with pytest.raises(UserError, match=f"here={blocks} equal blocks do not fit a code of 512"):
        edit.block_ends(np.array([512]), blocks, "here")


def test_the_published_ranges_are_those_of_both_papers():
    pdae, diti = (module.get_config().tasks.counterfactual for module in (pdae_celeba, diti_celeba))
    assert pdae.ranges == diti.ranges == ((2, 4), (16, 8), (24, 8), (32, 32))
    assert (pdae.blocks, diti.blocks) == (64, 0)


def test_a_counterfactual_of_a_flat_code_changes_one_equal_block_alone(pdae, tmp_path):
    numbers, arrays, _ = run("counterfactual", "pdae", pdae, tmp_path, blocks=4, ranges=((1, 2),), points=4)
    first, second = pdae.encode(arrays["ends"])
    z = np.tile(first, (4, 1))
    z[:, 4:12] = np.linspace(first[4:12], second[4:12], 4)
    expected = pdae.decode(z, numbers=np.zeros(4, np.int32))
    assert np.abs(arrays["images"][0].astype(int) - to_uint8(expected)).max() <= 1
    assert list(arrays["names"]) == ["blocks 1-2 of 4, 1 to 2", "blocks 1-2 of 4, 2 to 1"]
    assert numbers["blocks"] == 4
    by_model = pdae.counterfactual(*arrays["ends"], blocks=(1, 2), points=4, out_of=4)
    np.testing.assert_allclose(by_model, expected, atol=1e-5)
    assert np.abs(expected[3] - expected[0]).max() > 1e-3


def test_a_flat_code_is_one_block_unless_it_is_cut(pdae, tmp_path):
    with pytest.raises(UserError, match="this model has 1, numbered from 0"):
        run("counterfactual", "pdae", pdae, tmp_path, blocks=0, ranges=((1, 1),))
    with pytest.raises(UserError, match="tasks.counterfactual.blocks=5 equal blocks"):
        run("counterfactual", "pdae", pdae, tmp_path, blocks=5)


# --- prefixes


def test_a_prefix_keeps_the_first_dimensions_and_the_stochastic_code():
    encoded = Encoded(RANDOM.normal(size=(3, 6)).astype(np.float32), RANDOM.normal(size=(3, 2, 2, 1)))
    cut = edit.prefix(encoded, 4)
    np.testing.assert_array_equal(cut.z[:, :4], encoded.z[:, :4])
    assert not cut.z[:, 4:].any() and cut.stochastic_code is encoded.stochastic_code
    np.testing.assert_array_equal(edit.prefix(encoded, 6).z, encoded.z)


def test_images_from_the_first_blocks_are_those_of_the_masked_codes(diti, tmp_path):
    numbers, arrays, folder = run("reconstruct", "diti", diti, tmp_path, num_images=4, prefixes=(8, 0, 2))
    lines = numbers["prefixes"]
    assert [(line["blocks"], line["dimensions"]) for line in lines] == [(0, 0), (2, 5), (8, 16)]
    x = arrays["images"] / 255
    for line in lines:
        z = arrays["codes"] * (np.arange(16) < line["dimensions"])
        images = to_uint8(diti.decode(z)) / 255
        np.testing.assert_allclose(line["mse"], ((images - x) ** 2).mean(), atol=2e-4)
    assert lines[-1]["mse"] == pytest.approx(numbers["mse"], abs=1e-6)  # all blocks are all of z
    assert len({line["mse"] for line in lines}) == 3
    for name in ("prefixes.png", "prefixes_curve.png"):
        assert np.asarray(Image.open(folder / name)).std() > 5


def test_prefixes_that_there_are_not_are_refused(diti, tmp_path):
    with pytest.raises(UserError, match="prefixes asks for 9 blocks; this model has 8"):
        run("reconstruct", "diti", diti, tmp_path, prefixes=(9,))
    with pytest.raises(UserError, match="prefixes holds -1"):
        run("reconstruct", "diti", diti, tmp_path, prefixes=(-1,))
    assert not list(tmp_path.rglob("*.png"))


# --- charts


def test_a_charts_line_rises_where_its_values_do():
    """The lowest blue pixel of the left half lies below that of the right half."""
    picture = _charts.line_chart({"a": [(0, 1.0), (1, 10.0), (2, 100.0), (3, np.nan)]}, "x", "y", log_y=True)
    rows, columns = np.nonzero((picture == (0x1F, 0x5F, 0xA8)).all(-1))
    inside = rows > _charts.TOP - 2
    rows, columns = rows[inside], columns[inside]
    left, right = rows[columns < columns.mean()], rows[columns > columns.mean()]
    assert left.mean() > right.mean() + 50
    middle = rows[np.abs(columns - (columns.min() + columns.max()) / 2) < 2].mean()
    np.testing.assert_allclose(middle, (rows.min() + rows.max()) / 2, atol=4)  # logarithmic: half-way
