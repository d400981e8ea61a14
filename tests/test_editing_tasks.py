"""Counterfactuals and manipulation: their ends are reconstructions, and codes move as the closed forms say."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import scipy.linalg
from PIL import Image

from configs import dbae_digits, diti_digits, pdae_digits
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError
from diffrep_jax.inference.edit import move, step
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.methods.base import build
from diffrep_jax.readout.head import Head, signed
from diffrep_jax.runs.layout import Run
from diffrep_jax.tasks import _attributes, _heads
from diffrep_jax.tasks.counterfactual import Counterfactual
from diffrep_jax.tasks.manipulate import Manipulate
from tests.task_runs import kept, run_task
from tests.tiny import tiny_config

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model(tiny_model):
    """Four steps leave most of a picture as it was at the start, the same for all codes: here it depends on them."""
    leaves, tree = jax.tree.flatten(tiny_model.variables["params"])
    noise = np.random.default_rng(1)
    leaves = [x + 0.1 * noise.standard_normal(x.shape).astype(np.float32) for x in leaves]
    return dataclasses.replace(
        tiny_model, variables=tiny_model.variables | {"params": jax.tree.unflatten(tree, leaves)}
    )


@pytest.fixture(scope="module")
def coded(model, tmp_path_factory):
    """A run's folder with the codes of its digits."""
    folder = kept(tmp_path_factory.mktemp("runs") / "run")
    for split in ("train", "test"):
        run_task("encode", model, folder, split=split, batch_size=99)
    return folder


@pytest.fixture
def workdir(coded, tmp_path):
    return shutil.copytree(coded, tmp_path / "run")


def levels(images):
    return np.asarray(images).astype(int)


@pytest.mark.parametrize("invert_steps", [0, 3])
def test_a_counterfactual_of_all_blocks_goes_from_one_reconstruction_to_the_other(model, tmp_path, invert_steps):
    settings = {"invert_steps": invert_steps}
    _, reconstructed = run_task("reconstruct", model, tmp_path, num_images=6, **settings)
    _, folder = run_task("counterfactual", model, tmp_path, first="1", second="5", points=4, **settings)
    whole = levels(np.load(reconstructed / "arrays.npz")["reconstructions"])
    ways = levels(np.load(folder / "arrays.npz")["images"])
    assert ways.shape[:2] == (2, 4)
    for way, ends in zip(ways, ((1, 5), (5, 1)), strict=True):
        assert np.abs(way[0] - whole[ends[0]]).max() <= 1
        assert np.abs(way[-1] - whole[ends[1]]).max() <= 1
    assert np.abs(ways[0] - ways[1, ::-1]).max() <= 1
    numbers = json.loads((folder / "metrics.json").read_text())
    assert numbers["invert_evaluations"] == max(0, invert_steps - 1)  # karras: its last node is the image's


def counterfactual(ranges):
    settings = tiny_config().tasks.counterfactual.to_dict() | {"ranges": ranges}
    return Counterfactual(**settings)


def test_ranges_of_blocks_are_slices_of_the_code():
    ends = np.array([2, 3, 7, 8])
    slices = counterfactual(((0, 1), (1, 2), (3, 1))).slices(ends)
    assert list(slices.values()) == [slice(0, 2), slice(2, 7), slice(7, 8)]
    assert list(slices) == ["block 0 of 4", "blocks 1-2 of 4", "block 3 of 4"]
    assert list(counterfactual(()).slices(ends).values()) == [slice(0, 8)]


@pytest.mark.parametrize("ranges", [((4, 1),), ((-1, 2),), ((0, 0),), ((2, 3),)])
def test_blocks_that_there_are_not_are_refused(ranges):
    with pytest.raises(UserError, match="this model has 4, numbered from 0"):
        counterfactual(ranges).slices(np.array([2, 3, 7, 8]))


@pytest.mark.parametrize("ranges", [(3, 4), ((1, 2, 3),), (("a", 1),)])
def test_ranges_that_are_no_pairs_are_refused(ranges):
    with pytest.raises(UserError, match=r"write \(\(first block, number of blocks\)"):
        counterfactual(ranges)


def head_of(kernel, std, **changes):
    d = len(kernel)
    origin = {"kind": "bce", "dataset": "digits", "trained_by": "a test", "fingerprint": np.ones(d)}
    head = Head(("smile",), kernel[:, None], np.array([0.3]), mean=RANDOM.normal(size=d), std=std, **origin)
    return dataclasses.replace(head, **changes)


@pytest.mark.parametrize("normalised", [False, True])
def test_moving_a_code_raises_the_logit_by_the_scale_alone(normalised):
    """By scale sqrt(d) times the norm of the weights in the space of the step; what the head does not read stays."""
    d, std = 9, RANDOM.uniform(0.5, 2, 9)
    kernel = np.where(np.arange(d) % 2, RANDOM.normal(size=d), 0)
    head, z = head_of(kernel, std), RANDOM.normal(size=(5, d))
    weights = kernel * std if normalised else kernel
    for scale in (-0.7, 0.4):
        moved = move(Encoded(z), head.direction(normalised), scale).z
        expected = scale * np.sqrt(d) * np.linalg.norm(weights)
        np.testing.assert_allclose(head.logits(moved) - head.logits(z), expected)
        np.testing.assert_array_equal(moved[:, kernel == 0], z[:, kernel == 0])
        length = np.linalg.norm((moved - z) / (std if normalised else 1), axis=1)
        np.testing.assert_allclose(length, abs(scale) * np.sqrt(d))


@pytest.mark.parametrize("normalised", [False, True])
def test_the_smallest_step_to_several_boundaries(normalised):
    """At 1 all logits are 0, at 2 they are the negated; any other step to there is longer."""
    n, d, k = 5, 9, 3
    std, z = RANDOM.uniform(0.5, 2, d), RANDOM.normal(size=(n, d))
    kernel, bias = RANDOM.normal(size=(d, k)), RANDOM.normal(size=k)
    head = dataclasses.replace(head_of(kernel[:, 0], std), names=("a", "b", "c"), kernel=kernel, bias=bias)
    to_boundary = head.to_boundary(z, normalised)
    np.testing.assert_allclose(head.logits(step(Encoded(z), to_boundary, 1.0).z), 0, atol=1e-12)
    np.testing.assert_allclose(head.logits(step(Encoded(z), to_boundary, 2.0).z), -head.logits(z), atol=1e-12)
    unit = std if normalised else np.ones(d)
    free = scipy.linalg.null_space(kernel.T)  # steps that change no logit
    for other in RANDOM.normal(size=(20, n, d - k)):
        longer = np.linalg.norm((to_boundary + other @ free.T) / unit, axis=1)
        assert (longer > np.linalg.norm(to_boundary / unit, axis=1)).all()


def test_several_attributes_are_the_sum_of_their_ways_and_a_minus_turns_one_round():
    std = RANDOM.uniform(0.5, 2, 9)
    smile, male = (head_of(RANDOM.normal(size=9), std, names=(name,)) for name in ("smile", "male"))
    both = signed({"smile": smile, "male": male}, {"smile": 1, "male": -1})
    assert both.names == ("smile", "-male")
    np.testing.assert_allclose(both.direction(True), smile.direction(True) - male.direction(True))
    z = RANDOM.normal(size=(4, 9))
    np.testing.assert_allclose(both.logits(z), np.concatenate([smile.logits(z), -male.logits(z)], axis=1))


def test_attributes_are_wanted_by_name_or_number_with_a_sign():
    every = ["ink", "-2", "a,b", "hair"]
    assert _attributes.wanted(every, "hair, -ink") == {"hair": 1, "ink": -1}
    assert _attributes.wanted(every, "a,b") == {"a,b": 1} and _attributes.wanted(every, "-2") == {"-2": 1}
    assert _attributes.wanted(every, "0,-3") == {"ink": 1, "hair": -1}
    for wrong in ("", "ink,", "4", "-", "ink;hair"):
        with pytest.raises(UserError, match="Unknown attribute"):
            _attributes.wanted(every, wrong)
    for twice in ("ink,ink", "ink,-ink", "hair,3"):
        with pytest.raises(UserError, match=f"attribute={twice} has '.*' twice"):
            _attributes.wanted(every, twice)


def test_images_go_across_the_boundary_of_the_head(model, probed, tmp_path):
    """By the file's own head: what the codes that are decoded have for logits."""
    workdir = shutil.copytree(probed, tmp_path / "run")
    settings = {"attribute": "7,-1", "num_images": 4, "scales": (0.0, 2.0), "move": "across"}
    _, folder = run_task("manipulate", model, workdir, **settings)
    head, numbers = _heads.read(folder / "head.npz"), json.loads((folder / "metrics.json").read_text())
    assert head.names == ("7", "-1") and numbers["attribute"] == "7, -1" and numbers["move"] == "across"
    with np.load(folder / "arrays.npz") as arrays:
        z, images = model.encode(arrays["inputs"]), arrays["images"]
    moved = (z - 2 * head.logits(z) @ np.linalg.pinv(head.kernel)).astype(np.float32)
    expected = to_uint8(model.decode(moved, model.endpoint(moved)))
    assert np.abs(levels(images[1]) - levels(expected)).max() <= 1
    shares = (head.logits(model.encode(images[0])) > 0).mean(0)
    assert numbers["share_positive"]["0.0"] == {"7": shares[0], "-1": shares[1]}


def test_a_measure_has_no_boundary(model, workdir):
    with pytest.raises(UserError, match="move=across needs attributes that an image has or lacks; 'ink' is measured"):
        run_task("manipulate", model, workdir, attribute="ink", move="across", epochs=1)
    assert not (workdir / "manipulate").exists()


def test_a_measure_has_no_boundary_is_known_before_anything_is_encoded(model, tmp_path):
    task = Manipulate(**tiny_config().tasks.manipulate.to_dict() | {"attribute": "7,ink", "move": "across"})
    with pytest.raises(UserError, match="'ink' is measured"):
        task.check(model, Run.at(tmp_path, tiny_config()))


def test_manipulation_at_scale_0_is_the_reconstruction(model, workdir):
    _, reconstructed = run_task("reconstruct", model, workdir, num_images=6)
    settings = {"num_images": 6, "scales": (-50.0, 0.0), "epochs": 2, "promask": 4, "lr": 1e-2}
    numbers, folder = run_task("manipulate", model, workdir, attribute="slant", **settings)
    arrays = np.load(folder / "arrays.npz")
    whole = np.load(reconstructed / "arrays.npz")
    np.testing.assert_array_equal(arrays["inputs"], whole["images"])
    assert np.abs(levels(arrays["images"][1]) - levels(whole["reconstructions"])).max() <= 1
    assert np.abs(levels(arrays["images"][0]) - levels(whole["reconstructions"])).max() > 1
    head = _heads.read(folder / "head.npz")
    assert (head.kernel != 0).sum() == numbers["dimensions"] < 8
    with np.load(workdir / "encode" / "digits_test.npz") as test:
        logits, slants = head.logits(test["codes"])[:, 0], test["attributes"][:, 1]
    np.testing.assert_allclose(numbers["r"], np.corrcoef(logits, slants)[0, 1], atol=1e-6)


# --- spaces and endpoints


def test_codes_are_moved_in_the_space_and_from_the_endpoint_that_was_asked_for(model, workdir):
    """All four ways against codes that were moved by hand; the method's own space is the paper's."""
    by_default, _ = manipulated(model, workdir)
    pictures = {}
    for space in ("raw", "normalised"):
        for endpoint in ("unchanged", "moved"):
            images, numbers = manipulated(model, workdir, space=space, endpoint=endpoint)
            assert (numbers["space"], numbers["endpoint"]) == (space, endpoint)
            with np.load(workdir / "manipulate" / "arrays.npz") as arrays:
                z = model.encode(arrays["inputs"]).astype(np.float64)
            head = _heads.read(workdir / "manipulate" / "head.npz")
            kernel = head.kernel[:, 0].astype(np.float64)
            if space == "raw":
                moved = z + SCALE * np.sqrt(8) * kernel / np.linalg.norm(kernel)
            else:
                weights = kernel * head.std  # of the same head, on normalised codes
                moved = (z - head.mean) / head.std + SCALE * np.sqrt(8) * weights / np.linalg.norm(weights)
                moved = head.mean + head.std * moved
            x_T = model.endpoint(z if endpoint == "unchanged" else moved)
            expected = to_uint8(model.decode(moved, x_T))
            assert np.abs(levels(images) - levels(expected)).max() <= 1
            pictures[space, endpoint] = levels(images)
    ways = list(pictures.values())
    assert all(np.abs(one - other).max() > 2 for i, one in enumerate(ways) for other in ways[:i])
    np.testing.assert_array_equal(by_default, pictures["raw", "moved"])  # as the digits' config says
    assert Manipulate.endpoint == "unchanged"  # the paper's


def manipulated(model, workdir, **settings):
    """(The images, metrics.json.)"""
    settings = {"attribute": "ink", "num_images": 4, "scales": (SCALE,), "epochs": 1, "lr": 1e-2} | settings
    _, folder = run_task("manipulate", model, workdir, **settings)
    with np.load(folder / "arrays.npz") as arrays:
        return arrays["images"][0], json.loads((folder / "metrics.json").read_text())


SCALE = -3.0


def test_the_gaussian_family_edits_normalised_codes():
    methods = [build(module.get_config().method) for module in (dbae_digits, pdae_digits, diti_digits)]
    assert [method.edits_normalised for method in methods] == [False, True, True]


# --- whose head


@pytest.fixture(scope="module")
def probed(model, coded, tmp_path_factory):
    folder = shutil.copytree(coded, tmp_path_factory.mktemp("probed") / "run")
    run_task("probe", model, folder, epochs=2)
    return folder


SEVEN = {"attribute": "7", "num_images": 4, "scales": (0.3,), "epochs": 1}


def test_the_head_of_the_probe_is_taken_where_there_is_one(model, probed, tmp_path):
    workdir = shutil.copytree(probed, tmp_path / "run")
    numbers, folder = run_task("manipulate", model, workdir, **SEVEN)
    head = _heads.read(folder / "head.npz")
    assert head.names == ("7",) and head.trained_by == "probe" and head.dataset == "digits"
    assert json.loads((folder / "metrics.json").read_text())["head"] == "probe"
    with np.load(workdir / "encode" / "digits_test.npz") as test:
        codes = test["codes"]
    with np.load(workdir / "probe" / "classes_digits.npz") as probe:
        expected = codes @ probe["kernel"][:, 7] + probe["bias"][7]
    np.testing.assert_allclose(head.logits(codes)[:, 0], expected, atol=1e-4)
    assert 0 <= numbers["ap"] <= 1


def test_a_masked_head_is_never_the_probes(model, probed, tmp_path):
    workdir = shutil.copytree(probed, tmp_path / "run")
    _, folder = run_task("manipulate", model, workdir, **SEVEN | {"promask": 3, "epochs": 3})
    assert _heads.read(folder / "head.npz").trained_by == "manipulate"


def test_the_head_of_another_data_set_is_not_taken(model, probed, tmp_path):
    """It has the name and is of this network, but another data set may mean something else by it."""
    workdir = shutil.copytree(probed, tmp_path / "run")
    run = Run.at(workdir, tiny_config())
    head = _heads.read(_heads.path_of(run, "classes", "digits"))
    for path in (workdir / "probe").glob("*.npz"):
        path.unlink()
    _heads.save(run, {"classes": dataclasses.replace(head, dataset="fashion")})
    _, folder = run_task("manipulate", model, workdir, **SEVEN)
    own = _heads.read(folder / "head.npz")
    assert (own.trained_by, own.dataset) == ("manipulate", "digits")
    assert np.abs(own.kernel[:, 0] - head.kernel[:, 7]).max() > 1e-3


def test_the_head_from_before_more_training_is_not_taken(model, probed, tmp_path, caplog):
    workdir = shutil.copytree(probed, tmp_path / "run")
    trained = dataclasses.replace(model, variables=jax.tree.map(lambda x: 1.01 * x, model.variables))
    _, folder = run_task("manipulate", trained, workdir, encode_batch_size=99, **SEVEN)
    head = _heads.read(folder / "head.npz")
    assert head.trained_by == "manipulate" and "is of another state of the network: not used" in caplog.text
    np.testing.assert_allclose(head.fingerprint, trained.fingerprint(), rtol=1e-4, atol=1e-5)
    with np.load(workdir / "encode" / "digits_train.npz") as train:  # codes of the new state, too
        np.testing.assert_allclose(head.mean, train["codes"].mean(0), rtol=1e-4, atol=1e-5)


def test_a_head_that_cannot_be_read_is_refused(model, probed, tmp_path):
    workdir = shutil.copytree(probed, tmp_path / "run")
    path = workdir / "probe" / "classes_digits.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "fingerprint"}
    np.savez(path, **arrays)
    with pytest.raises(
        UserError, match="classes_digits.npz has no fingerprint: an earlier version.*--task=probe again"
    ):
        run_task("manipulate", model, workdir, **SEVEN)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="classes_digits.npz is no head that can be read .*--task=probe again"):
        run_task("manipulate", model, workdir, **SEVEN)


# --- images of one's own, and what is refused


def test_images_of_ones_own_may_be_changed(model, workdir, tmp_path):
    (tmp_path / "own").mkdir()
    for i in range(2):
        Image.fromarray(RANDOM.integers(0, 255, (12, 10), np.uint8)).save(tmp_path / "own" / f"{i}.png")
    paths = {"images": tmp_path / "own"}
    _, folder = run_task("manipulate", model, workdir, paths, attribute="ink", scales=(0.3,), epochs=1)
    assert np.load(folder / "arrays.npz")["images"].shape == (1, 2, 8, 8, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute": "Smiling"}, "'Smiling'.*ink"),
        ({"attribute": "14"}, "'14'"),
        ({"promask": 9}, "promask 9 is above latent_dim=8"),
        ({"promask": -1}, "tasks.manipulate.promask is -1; use 0 or more"),
        ({"epochs": 0}, "tasks.manipulate.epochs is 0; use 1 or more"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"invert_steps": -1}, "tasks.manipulate.invert_steps is -1"),
        ({"space": "normal"}, "Unknown space 'normal' in tasks.manipulate.space. Did you mean 'normalised'"),
        ({"move": "acros"}, "Unknown move 'acros' in tasks.manipulate.move. Did you mean 'across'"),
        ({"endpoint": "move"}, "Unknown endpoint 'move' in tasks.manipulate.endpoint. Did you mean 'moved'"),
    ],
)
def test_bad_settings_of_manipulation_are_refused(settings, message, model, coded):
    with pytest.raises(UserError, match=message):
        run_task("manipulate", model, coded, **settings)
    assert not (coded / "manipulate").exists()
