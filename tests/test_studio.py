"""What the web page does with a run: every answer is what the model itself gives, or obeys a law of its edits."""

import dataclasses
import shutil

import numpy as np
import pytest

import diffrep_jax
from benchmarks import examples
from diffrep_jax import data
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference import edit, heads
from diffrep_jax.readout.head import Head
from diffrep_jax.runs import config as run_config
from diffrep_jax.runs.layout import write_arrays
from launch.studio import Steps, Studio
from tests.task_runs import run_task

STEPS = Steps(2, 0)


def made_head(model, names=("slant", "ink"), kind="mse", fingerprint=None):
    d = model.latent_dim
    return Head(
        names=names,
        kernel=np.random.default_rng(0).normal(size=(d, len(names))).astype(np.float32),
        bias=np.zeros(len(names), np.float32),
        kind=kind,
        dataset="digits",
        trained_by="probe",
        mean=np.zeros(d),
        std=np.ones(d),
        fingerprint=model.fingerprint() if fingerprint is None else fingerprint,
    )


@pytest.fixture(scope="module")
def run(tiny_run, tiny_model, tmp_path_factory):
    """The tiny run with two heads of its own, and one of another network."""
    folder = tmp_path_factory.mktemp("studio") / "run"
    shutil.copytree(tiny_run, folder)
    (folder / "probe").mkdir()
    write_arrays(folder / "probe" / "attributes_digits.npz", **made_head(tiny_model).arrays())
    write_arrays(folder / "probe" / "classes_digits.npz", **made_head(tiny_model, ("7",), "bce").arrays())
    other = made_head(tiny_model, ("round",), fingerprint=-tiny_model.fingerprint())
    write_arrays(folder / "probe" / "attributes_shapes.npz", **other.arrays())
    return folder


@pytest.fixture(scope="module")
def studio(run):
    return Studio(str(run))


@pytest.fixture(scope="module")
def images():
    digits = data.open_dataset("digits", split="test", image_size=8, channels=1)
    return [digits[i]["image"] for i in (3, 4)]


def test_heads_are_those_of_these_weights(run, tiny_model, tmp_path, caplog):
    own = diffrep_jax.load_heads(run, tiny_model)
    assert {part: head.names for part, head in own.items()} == {"attributes": ("slant", "ink"), "classes": ("7",)}
    assert "attributes_shapes.npz is of another network" in caplog.text
    np.testing.assert_array_equal(own["attributes"].kernel, made_head(tiny_model).kernel)
    with pytest.raises(UserError, match="'shapes'.*Known: digits"):
        diffrep_jax.load_heads(run, tiny_model, dataset="shapes")
    with pytest.raises(UserError, match="--task=probe"):
        diffrep_jax.load_heads(tmp_path, tiny_model)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "classes_digits.npz").write_bytes(b"no head")
    with pytest.raises(UserError, match="no head that can be read"):
        heads.stored(tmp_path, tiny_model)


def test_a_reconstruction_is_the_models(studio, tiny_model, images):
    answer = studio.reconstruct(images[0], STEPS)
    z = tiny_model.encode(images[0][None])
    again = tiny_model.decode(z, steps=2)
    np.testing.assert_array_equal(answer.pictures["back from the code"], to_uint8(again)[0])
    np.testing.assert_allclose(answer.codes, z[0], atol=1e-6)
    assert answer.line.startswith("heun, 3 evaluations, ") and answer.line.endswith(" s")
    assert "3 evaluations + 3 upward" in studio.reconstruct(images[0], Steps(2, 4)).line


def test_a_way_begins_and_ends_at_the_reconstructions(studio, images):
    frames = list(studio.interpolate(*images, 4, STEPS).pictures.values())
    ends = [studio.reconstruct(image, STEPS).pictures["back from the code"] for image in images]
    assert len(frames) == 4
    for frame, end in zip((frames[0], frames[-1]), ends, strict=True):
        np.testing.assert_allclose(frame.astype(int), end.astype(int), atol=1)


def test_attributes_add_up_and_zero_changes_nothing(studio, images):
    still = studio.manipulate(images[0], dict.fromkeys(studio.heads, 0.0), STEPS)
    plain = studio.reconstruct(images[0], STEPS)
    np.testing.assert_array_equal(still.pictures["changed"], plain.pictures["back from the code"])
    both = studio.manipulate(images[0], {"slant": 0.2, "7": -0.1}, STEPS)
    assert not np.array_equal(both.pictures["changed"], still.pictures["changed"])
    directions = [studio.heads[name].direction(normalised=False) for name in ("slant", "7")]
    step = np.sqrt(8) * (0.2 * directions[0] - 0.1 * directions[1])
    np.testing.assert_allclose(both.codes - still.codes, step, atol=1e-5)
    before, after = studio.read(still.codes), studio.read(both.codes)
    assert set(before) == {"slant", "ink", "7"} and 0 <= after["7"] <= 1


@pytest.mark.parametrize("endpoint", ["unchanged", "moved"])
@pytest.mark.parametrize("move", ["along", "across"])
@pytest.mark.parametrize("space", ["raw", "normalised"])
def test_attributes_are_changed_as_the_task_does_by_the_same_config(run, tmp_path, space, move, endpoint):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config, path = run_config.load(folder), folder / "probe" / "classes_digits.npz"
    stored = heads.read(path)
    uneven = dataclasses.replace(stored, std=np.linspace(0.5, 2, len(stored.std)), bias=np.array([0.3], np.float32))
    write_arrays(path, **uneven.arrays())
    with config.unlocked():
        config.tasks.manipulate.update(space=space, move=move, endpoint=endpoint, scales=(10.0,), num_images=1)
        config.tasks.manipulate.update(head=str(path), attribute="7", invert_steps=0)
    run_config.save(config, folder)
    _, out = run_task("manipulate", folder, folder, sampling={"steps": 2})
    studio = Studio(str(folder))
    answer = studio.manipulate(studio.examples()[0], {"7": 10.0, "ink": 0.0}, STEPS)
    expected = np.load(out / "arrays.npz")["images"][0, 0]
    np.testing.assert_allclose(answer.pictures["changed"].astype(int), expected.astype(int), atol=2)
    head, z = heads.read(out / "head.npz"), studio.model.encode(studio.examples()[0][None])
    normalised = space == "normalised"
    way = head.to_boundary(z, normalised) if move == "across" else np.sqrt(8) * head.direction(normalised)
    np.testing.assert_allclose(np.asarray(answer.codes), (z + 10 * way)[0], rtol=1e-4, atol=1e-4)


def test_across_several_boundaries_each_logit_goes_its_own_share_of_the_way(run, images, tmp_path):
    """At 1 the head doubts, at 2 it is as sure of the contrary; what is measured has no boundary."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = run_config.load(folder)
    with config.unlocked():
        config.tasks.manipulate.move = "across"
    run_config.save(config, folder)
    studio = Studio(str(folder))
    write_arrays(folder / "probe" / "classes_digits.npz", **made_head(studio.model, ("7", "8"), "bce").arrays())
    studio = Studio(str(folder))
    z = [np.asarray(studio.manipulate(images[0], scales, STEPS).codes) for scales in ({}, {"7": 1.0, "8": 2.0})]
    before, after = ([float(studio.heads[name].logits(x[None])[0, 0]) for name in "78"] for x in z)
    np.testing.assert_allclose(after, [0, -before[1]], atol=1e-4)
    with pytest.raises(UserError, match="'ink' is measured.* slider at 0"):
        studio.manipulate(images[0], {"7": 1.0, "ink": 0.1}, STEPS)


def test_a_manipulation_that_there_is_not_is_refused_when_the_run_is_opened(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    config = run_config.load(tmp_path / "run")
    with config.unlocked():
        config.tasks.manipulate.move = "over"
    run_config.save(config, tmp_path / "run")
    with pytest.raises(UserError, match="'over' in tasks.manipulate.move"):
        Studio(str(tmp_path / "run"))


def test_exchanging_all_blocks_exchanges_the_images(studio, images):
    ends = [studio.reconstruct(image, STEPS).pictures["back from the code"] for image in images]
    assert studio.blocks == [str(i) for i in range(8)]
    none, everything = (list(studio.exchange(*images, names, STEPS).pictures.values()) for names in ([], studio.blocks))
    for got, expected in zip([*none, *everything], [*ends, *ends[::-1]], strict=True):
        np.testing.assert_allclose(got.astype(int), expected.astype(int), atol=1)
    one = list(studio.exchange(*images, ["2"], STEPS).pictures.values())
    first, second = (studio.encode(image.tobytes(), image.shape, STEPS) for image in images)
    for got, way in zip(one, [(first, second), (second, first)], strict=True):
        mixed = edit.between(*way, 1.0, slice(2, 3))
        expected = to_uint8(studio.model.decode(mixed, steps=STEPS.decode))
        np.testing.assert_allclose(got.astype(int), expected[0].astype(int), atol=1)


def test_new_images_need_a_prior_and_a_prior_is_no_run_to_show(studio, tmp_path):
    assert not studio.makes_images
    with pytest.raises(UserError, match="prior"):
        studio.sample(2, 0, STEPS)
    with pytest.raises(UserError, match="makes codes, no images"):
        Studio("pretrained/prior_digits")
    with pytest.raises(UserError, match="not a run"):
        Studio(str(tmp_path / "nothing"))


def test_examples_lie_next_to_the_weights_else_they_are_the_test_split(run, studio, tmp_path):
    assert len(studio.examples()) == 16
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    paths = examples.write(copy, [5, 3], None)
    digits = data.open_dataset("digits", split="test", image_size=8, channels=1)
    assert [path.name for path in paths] == ["00.png", "01.png"]
    for image, number in zip(Studio(str(copy)).examples(), (5, 3), strict=True):
        np.testing.assert_array_equal(image, digits[number]["image"])
    with pytest.raises(UserError, match="297 images"):
        examples.write(copy, [297], None)


def test_a_method_that_ends_in_noise_shows_the_noise_that_was_inferred():
    studio = Studio("pretrained/diti_digits")
    image = studio.examples()[0]
    shown = studio.reconstruct(image, Steps(1, 2)).pictures["x_T"]
    code = studio.model.encoded(image[None], 2).stochastic_code
    np.testing.assert_array_equal(shown, to_uint8(np.clip(code[0], -1, 1)))
    drawn = to_uint8(np.clip(studio.model.endpoint(studio.model.encode(image[None]))[0], -1, 1))
    np.testing.assert_array_equal(studio.reconstruct(image, Steps(1, 0)).pictures["x_T"], drawn)
    assert studio.blocks[0] == "0-1" and "11" in studio.blocks


def test_a_reversible_sampler_goes_up_the_steps_that_it_comes_back(run, images, tmp_path):
    """As many as the slider says, which is not the number of the run."""
    shutil.copytree(run, tmp_path / "run")
    config = run_config.load(tmp_path / "run")
    with config.unlocked():
        config.sampling.update(sampler="leapfrog", grid="uniform_lambda", start="noise", steps=10)
    run_config.save(config, tmp_path / "run")
    studio = Studio(str(tmp_path / "run"))
    for steps in (10, 5):
        back = studio.reconstruct(images[0], Steps(steps, steps)).pictures["back from the code"]
        np.testing.assert_allclose(back.astype(int), images[0].astype(int), atol=1)
    with pytest.raises(UserError, match="invert_steps 10 does not go with sampler leapfrog.*use invert_steps=5"):
        studio.reconstruct(images[0], Steps(5, 10))
