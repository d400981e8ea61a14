"""The task evaluate: its rows against reconstruct's arrays, files against arrays, FID and codes; what is refused."""

import json
import pathlib
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import linalg

from diffrep_jax import config as configs
from diffrep_jax import data
from diffrep_jax.data.transforms import to_float
from diffrep_jax.errors import UserError
from diffrep_jax.inference.open import recipe
from diffrep_jax.metrics import image as metrics
from diffrep_jax.metrics import inception, lpips
from diffrep_jax.port import files
from diffrep_jax.runs import config as run_config
from diffrep_jax.tasks import _measures, base
from tests import perceptual
from tests.task_runs import run_task
from tests.tiny import tiny_config

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 9, 40, 36, 3), np.uint8)  # images, and what became of them


NETWORKS = ("lpips", "fid")


def evaluate(model, out, weights_dir=None, without=NETWORKS, **settings):
    """(What the task returns, its metrics.json.)"""
    paths = {"weights_dir": weights_dir} if weights_dir else {}
    numbers, folder = run_task("evaluate", model, out, paths, without=without, **settings)
    return numbers, json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory):
    """Generated weights under the standard names."""
    folder = tmp_path_factory.mktemp("weights")
    alexnet, heads = perceptual.lpips_states()
    files.write_safetensors(folder / "alexnet-owt-7be5be79.safetensors", alexnet)
    files.write_safetensors(folder / "alex.safetensors", heads)
    files.write_safetensors(folder / "pt_inception-2015-12-05-6726825d.safetensors", perceptual.inception_state())
    return folder


# --- rows


def test_a_row_is_what_reconstruct_makes(tiny_model, tmp_path):
    """Measured from its arrays; the last batch is short."""
    run_task("reconstruct", tiny_model, tmp_path, num_images=6)
    numbers, report = evaluate(tiny_model, tmp_path, num_images=6)
    (row,) = report["rows"]
    with np.load(tmp_path / "reconstruct" / "arrays.npz") as arrays:
        x, y = arrays["images"] / 255, arrays["reconstructions"] / 255
    for name in ("mse", "psnr", "ssim", "ssim_official"):
        assert row[name] == numbers[name] == pytest.approx(getattr(metrics, name)(x, y).mean(), rel=1e-3), name
    known = {"sampler": "heun", "grid": "karras", "steps": 2, "evaluations": 3, "churn_step_ratio": 0.0, "eta": 0.0}
    known |= {"seed": 0, "images": 6, "dataset": "digits", "split": "test", "invert_steps": 0}
    assert known.items() <= row.items()
    assert row["lpips"] is None and row["fid"] is None and row["seconds"] > 0
    assert "not asked for" in report["missing"]["lpips"] and "not asked for" in report["missing"]["fid"]
    assert "disentanglement" not in report


def test_rows_are_the_settings_one_by_one(tiny_model, tmp_path):
    rows = (1, 2, {"sampler": "euler", "churn_step_ratio": 0.33}, {"sampler": "exponential", "invert_steps": 2})
    _, report = evaluate(tiny_model, tmp_path, rows=rows)
    assert [row["evaluations"] for row in report["rows"]] == [1, 3, 4, 2]  # churn evaluates too
    assert [row["sampler"] for row in report["rows"]] == ["heun", "heun", "euler", "exponential"]
    for i, setting in enumerate(({"steps": 1}, {}, rows[2], {"sampler": "exponential"})):
        _, alone = evaluate(tiny_model, tmp_path / str(i), sampling=setting, invert_steps=2 * (i == 3))
        assert alone["rows"][0]["mse"] == pytest.approx(report["rows"][i]["mse"], rel=1e-3)
    assert len({row["mse"] for row in report["rows"]}) >= 3


def test_rows_come_back_from_a_runs_config(tmp_path):
    """The command line's text, and json's lists and dicts."""
    config = tiny_config()
    configs.override(config, {"tasks.evaluate.rows": "1, 5, {'sampler': 'euler', 'churn_step_ratio': 0}"})
    run_config.save(config, tmp_path)
    config = run_config.load(tmp_path)
    rows = base.build("evaluate", config.tasks.evaluate, {}).recipes(recipe(config))
    assert [(row.how.sampler, row.how.steps) for row in rows] == [("heun", 1), ("heun", 5), ("euler", 2)]


def test_a_run_without_reconstructions_is_none(tiny_model, tmp_path):
    numbers, report = evaluate(tiny_model, tmp_path, num_images=0)
    assert report["rows"] == [] and numbers == {}


# --- images in files


@pytest.fixture
def sets(tmp_path):
    """The pixels as two folders and as one .npz."""
    for name, pixels in zip(("real", "made"), PIXELS, strict=True):
        (tmp_path / name).mkdir()
        for i, image in enumerate(pixels):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    np.savez(tmp_path / "both.npz", images=PIXELS[0], reconstructions=PIXELS[1])
    return tmp_path


@pytest.mark.parametrize("names", [("real", "made"), ("both.npz", "both.npz"), ("real", "both.npz")])
def test_folders_and_arrays_are_compared(names, sets, tiny_model, tmp_path):
    reference, made = (str(sets / name) for name in names)
    _, report = evaluate(tiny_model, tmp_path, reference=reference, reconstructions=made, num_images=-1, batch_size=4)
    (row,) = report["rows"]
    x, y = PIXELS / 255
    for name in ("mse", "psnr", "ssim", "ssim_official"):
        assert row[name] == pytest.approx(getattr(metrics, name)(x, y).mean(), rel=1e-12), name
    assert (row["images"], row["dataset"], row["split"], row["sampler"]) == (9, reference, None, None)


def test_files_are_compared_with_the_split(tiny_model, tmp_path):
    run_task("reconstruct", tiny_model, tmp_path, num_images=6)
    _, one = evaluate(tiny_model, tmp_path, num_images=6)
    made = str(tmp_path / "reconstruct" / "arrays.npz")
    _, other = evaluate(tiny_model, tmp_path, reconstructions=made, num_images=6)
    assert other["rows"][0]["mse"] == pytest.approx(one["rows"][0]["mse"], rel=1e-3)
    assert other["rows"][0]["dataset"] == "digits"


def test_equal_images_have_no_finite_psnr(sets, tiny_model, tmp_path):
    both = {"reference": str(sets / "real"), "reconstructions": str(sets / "real"), "num_images": 1}
    numbers, report = evaluate(tiny_model, tmp_path, **both)
    (row,) = report["rows"]
    assert (row["mse"], row["psnr"], row["images"]) == (0, None, 1) and row["ssim"] == pytest.approx(1)
    assert "psnr" not in numbers


# --- networks


@pytest.fixture
def small_inception(monkeypatch):
    """In place of Inception: the means and the deviations of the rows of pixels."""
    features = lambda params, x: jnp.concatenate([x.mean((2, 3)), params["std"] * x.std((2, 3))], axis=1)  # noqa: E731
    monkeypatch.setattr("diffrep_jax.metrics.inception.FEATURES", 16)
    monkeypatch.setattr("diffrep_jax.metrics.inception.features", features)
    monkeypatch.setattr("diffrep_jax.tasks._weights.inception_weights", lambda folder: {"std": 2.0})


def test_lpips_and_rfid_with_weights(sets, weights_dir, tiny_model, tmp_path):
    """LPIPS is the mean over pairs; rFID scipy's, of the features of all images at once."""
    both = {"reference": str(sets / "real"), "reconstructions": str(sets / "made"), "num_images": 3, "batch_size": 3}
    # The run has 8 x 8 images, too small for AlexNet; these files are not.
    _, report = evaluate(tiny_model, tmp_path, weights_dir, without=(), **both)
    (row,) = report["rows"]
    x, y = PIXELS[:, :3]  # filled up to 4
    distances = np.asarray(jax.jit(lpips.distance)(lpips.weights(*perceptual.lpips_states()), to_float(x), to_float(y)))
    assert row["lpips"] == pytest.approx(distances.mean(), rel=1e-5)
    features = _measures._on_pixels(inception.features, inception.weights(perceptual.inception_state()))
    one, other = (features(images).astype(np.float64) for images in (x, y))
    covariances = [np.cov(features.T) for features in (one, other)]
    # tr (C1 C2)^(1/2) from the small Gram matrix: C1 C2 has no more eigenvalues but 0
    centred = [(features - features.mean(0)) / np.sqrt(len(features) - 1) for features in (one, other)]
    cross = linalg.svdvals(centred[0] @ centred[1].T).sum()
    expected = ((one.mean(0) - other.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross
    assert row["fid"] == pytest.approx(expected, rel=1e-5) and report["missing"] == {}


def test_samples_and_interpolations_against_the_training_images(tiny_model, small_inception, tmp_path, monkeypatch):
    """The training images themselves have an FID of 0; interpolations close to an image are its reconstructions."""
    monkeypatch.setattr(data.datasets.digits, "TRAIN_IMAGES", 12)
    train = data.open_dataset("digits", split="train", image_size=8, channels=1)
    pixels = np.stack([train[i]["image"] for i in range(12)])
    (tmp_path / "sample").mkdir()
    np.savez(tmp_path / "sample" / "samples.npz", images=pixels)
    np.savez(tmp_path / "other.npz", images=255 - pixels)
    settings = {"without": ("lpips",), "split": "train", "num_images": 5}
    _, report = evaluate(tiny_model, tmp_path, interpolate_at=0.999999, **settings)
    (own,) = report["generated"]
    assert own["images"] == own["training_images"] == 12 and own["path"].endswith("sample/samples.npz")
    (row,) = report["rows"]
    other = evaluate(tiny_model, tmp_path, generated=(str(tmp_path / "other.npz"),), **settings)[1]
    (inverted,) = other["generated"]
    assert 0 <= own["fid"] < 1e-6 * inverted["fid"]
    assert (own["precision"], own["recall"], own["features"], own["training_features"]) == (1, 1, 12, 12)
    assert inverted["precision"] == inverted["recall"] == 0 and "inception_score" not in own
    assert "fid_interpolation" not in other["rows"][0]
    # Interpolations 0.999999 of the way to the next are the reconstructions of images 1 to 4, in this order.
    run_task("reconstruct", tiny_model, tmp_path, split="train", num_images=5)
    with np.load(tmp_path / "reconstruct" / "arrays.npz") as arrays:
        np.savez(tmp_path / "last.npz", images=arrays["reconstructions"][1:])
    last = evaluate(tiny_model, tmp_path, generated=(str(tmp_path / "last.npz"),), **settings)[1]
    assert row["fid_interpolation"] == pytest.approx(last["generated"][0]["fid"], rel=1e-2)


def test_without_weights_the_rest_stands(tiny_model, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "urllib.request.urlopen", lambda *a, **k: (_ for _ in ()).throw(OSError("no route to the\nhost"))
    )
    _, report = evaluate(tiny_model, tmp_path, without=())
    assert report["rows"][0]["fid"] is None and report["rows"][0]["mse"] > 0
    assert report["missing"]["fid"].startswith("no weights: pt_inception-2015-12-05-6726825d.pth is not at hand")
    assert "no route to the host" in report["missing"]["fid"] and "\n" not in report["missing"]["fid"]
    assert report["missing"]["lpips"] == "the images have 8 pixels a side, it needs 31"
    assert "No fid: pt_inception" in caplog.text


def test_a_new_measure_is_one_entry(sets, tiny_model, tmp_path, monkeypatch):
    """Of pairs, or of sets: it is in every row, `without` knows its name, and small images are not measured by it."""

    class Brightness:
        count = 0

        def __init__(self):
            self.total = 0.0

        def update(self, images):
            self.count, self.total = self.count + len(images), self.total + images.mean((1, 2, 3)).sum()

        def distance(self, reference):
            return abs(self.total / self.count - reference.total / reference.count)

    def absolute(x, y):
        return np.abs(x.astype(float) - y).mean((1, 2, 3))

    monkeypatch.setitem(_measures.MEASURES, "mae", _measures.Measure(lambda folder: absolute))
    monkeypatch.setitem(_measures.MEASURES, "brightness", _measures.Measure(lambda folder: Brightness, pairs=False))
    monkeypatch.setitem(_measures.MEASURES, "large", _measures.Measure(lambda folder: absolute, smallest=37))
    both = {"reference": str(sets / "real"), "reconstructions": str(sets / "made"), "num_images": -1}
    _, report = evaluate(tiny_model, tmp_path, **both)
    (row,) = report["rows"]
    x, y = PIXELS.astype(float)
    assert row["mae"] == pytest.approx(np.abs(x - y).mean(), rel=1e-12)
    assert row["brightness"] == pytest.approx(abs(x.mean() - y.mean()), rel=1e-6)
    assert row["large"] is None and report["missing"]["large"] == "the images have 36 pixels a side, it needs 37"
    _, report = evaluate(tiny_model, tmp_path, num_images=4, rows=(1, 2))
    assert all(row["mae"] > 0 and row["brightness"] >= 0 for row in report["rows"])
    left, *_ = evaluate(tiny_model, tmp_path, without=(*NETWORKS, "mae"), **both)[1]["rows"]
    assert left["mae"] is None and left["brightness"] == row["brightness"]
    with pytest.raises(UserError, match="Unknown measure 'maes' in tasks.evaluate.without. Did you mean 'mae'"):
        evaluate(tiny_model, tmp_path, without=("maes",))


def test_memory_does_not_grow_with_the_number_of_images():
    instruments = _measures.open_instruments(NETWORKS, None, 40)

    def peak(count):
        tracemalloc.start()
        pairs, _ = _measures.compare(*(iter(PIXELS[0][:4] for _ in range(count)) for _ in range(2)), instruments)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert pairs.count == 4 * count
        return used

    peak(2)
    assert peak(60) < 1.1 * peak(2)


# --- codes


def test_codes_are_held_against_measures(tiny_model, tmp_path):
    numbers, report = evaluate(tiny_model, tmp_path, num_images=2, disentanglement_images=120, dci_images=60)
    codes = report["disentanglement"]
    assert (codes["images"], codes["dci"]["images"]) == (120, 60)
    assert codes["factors"] == ["ink", "slant", "width", "height"] and codes["dci"]["measured_by"] == "r2"
    assert 0 < codes["dci"]["disentanglement"] < 1 and 0 < codes["dci"]["completeness"] < 1
    assert "tad" not in codes  # of what an image has or lacks alone
    _, chosen = evaluate(tiny_model, tmp_path, num_images=2, disentanglement_images=60, attributes=("height", "ink"))
    assert {"images": 60, "factors": ["height", "ink"]}.items() <= chosen["disentanglement"].items()


def test_codes_are_held_against_what_images_have(tiny_model, tmp_path, monkeypatch):
    """A folder whose bright images are 'bright': a number of the code tells, as their brightness is all they are."""
    rows = ["file,bright,odd"]
    for i in range(60):
        Image.new("L", (8, 8), 40 + 3 * i).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{int(i >= 30)},{i % 2}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    settings = {"dataset": "folder", "num_images": 2, "disentanglement_images": -1, "dci_images": 50}
    numbers, report = evaluate(tiny_model, tmp_path / "out", **settings)
    codes = report["disentanglement"]
    assert codes["images"] == 54 and codes["captured"] == ["bright"]  # "odd" is in no number
    assert codes["attributes"] == numbers["attributes"] == 1 and 0 <= codes["tad"] <= 0.5
    assert codes["dci"]["each"]["bright"] >= 0.8 and codes["dci"]["measured_by"] == "accuracy"


# --- what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 298}, "num_images 298: split 'test' of 'digits' has 297; ask less"),
        ({"num_images": -2}, "num_images -2"),
        ({"split": "tset"}, "tset"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"rows": ({"step": 3},)}, "'step' in tasks.evaluate.rows. Did you mean 'steps'"),
        ({"rows": ({"steps": "three"},)}, "tasks.evaluate.rows.steps is 'three'; use a whole number"),
        ({"rows": ("heun",)}, "row 'heun' of tasks.evaluate.rows"),
        ({"rows": (0,)}, "steps 0"),
        ({"rows": ({"sampler": "huen"},)}, "Did you mean 'heun'"),
        ({"rows": ({"seed": 1},)}, "'seed' in tasks.evaluate.rows"),
        ({"without": ("lpisp",)}, "'lpisp' in tasks.evaluate.without. Did you mean 'lpips'"),
        ({"interpolate_at": 1.0}, "interpolate_at 1.0"),
        ({"reference": "somewhere"}, "reference 'somewhere' needs"),
        ({"reconstructions": "nowhere"}, "nowhere does not exist"),
        ({"generated": ("nowhere.npz",)}, "nowhere.npz does not exist"),
        ({"disentanglement_images": 8, "dci_images": 10}, "dci_images 10 is more than the 8 of"),
        ({"disentanglement_images": 4}, "disentanglement_images 4 is too few: give 5 or more"),
        ({"disentanglement_images": -1, "dci_images": 3}, "dci_images 3 is too few"),
        ({"dci_images": -1}, "dci_images -1"),
        ({"disentanglement_images": -2}, "disentanglement_images -2"),
        ({"disentanglement_images": 9999}, "9999 images were asked for: split 'train' of 'digits' has 1500"),
        ({"disentanglement_images": 20, "attributes": ("weight",)}, "Did you mean 'height'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(settings, message, tiny_model, tmp_path):
    with pytest.raises(UserError, match=message):
        evaluate(tiny_model, tmp_path, **settings)
    assert not list(tmp_path.rglob("metrics.json"))


def test_sets_that_do_not_fit_are_refused(sets, tiny_model, tmp_path):
    Image.new("RGB", (9, 9)).save(sets / "made" / "9.png")
    np.savez(sets / "small.npz", images=PIXELS[0][:, :20])
    both = {"reference": str(sets / "real"), "reconstructions": str(sets / "made")}
    for settings, message in [
        (both | {"num_images": -1}, "made has 10 images, .*real 9: each needs its partner"),
        (both | {"num_images": 10}, "num_images 10: .*real has 9"),
        (both | {"reference": str(sets / "made"), "num_images": -1}, "made mixes sizes: 36x40, and 9x9 at '9.png'"),
        (both | {"reference": str(sets / "small.npz")[:-4] + ".npz", "num_images": 9}, "36x20, .* 36x40"),
    ]:
        with pytest.raises(UserError, match=message):
            evaluate(tiny_model, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_data_set_without_labels_is_refused(tiny_model, tmp_path, monkeypatch):
    for i in range(8):
        Image.new("L", (8, 8), 30 * i).save(tmp_path / f"{i}.png")
    monkeypatch.setenv("DIFFREP_DATA", str(tmp_path))
    with pytest.raises(UserError, match="'folder' has no labels"):
        evaluate(tiny_model, tmp_path / "out", dataset="folder", num_images=1, disentanglement_images=5)


def test_a_folder_of_weights_that_is_not_there_is_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match="--weights_dir .*nowhere is no folder"):
        evaluate(tiny_model, tmp_path, pathlib.Path("nowhere"))


def test_the_command_answers_in_one_line(tiny_run, weights_dir, sets, capsys):
    """In process: the same `run` that the command calls; what goes wrong is said before the run's folder is touched."""
    from launch import main

    before = sorted(tiny_run.rglob("*"))
    field = "--config.tasks.evaluate"
    for arguments, message in [
        ([f"{field}.num_images=298"], "has 297; ask less"),
        ([f"{field}.rows=heun"], "'heun' of tasks.evaluate.rows is neither a number of steps nor"),
        ([f"{field}.reconstructions={sets / 'made'}", f"{field}.num_images=10"], "made has 9 images"),
        ([f"--weights_dir={sets / 'nowhere'}"], "is no folder"),
        (["--task=train", f"--weights_dir={weights_dir}"], "is of no use to --task=train; add --task=evaluate"),
        (["--task=reconstruct", f"--weights_dir={weights_dir}"], "is of no use to --task=reconstruct"),
    ]:
        with pytest.raises(SystemExit) as stop:
            task = [] if arguments[0].startswith("--task") else ["--task=evaluate"]
            main.run([f"--workdir={tiny_run}", *task, *arguments])
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.count("\n") == 1 and error.startswith("error: "), error
        assert message in error
    assert sorted(tiny_run.rglob("*")) == before
