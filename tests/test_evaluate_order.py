"""What `evaluate` cannot do it refuses before its long work: nothing is encoded, decoded or written until then."""

import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.inference.model import Model
from tests.task_runs import kept, run_task


@pytest.fixture
def work(monkeypatch):
    """The names of what the model was asked for."""
    calls = []
    for name in ("encode", "encoded", "decode"):
        monkeypatch.setattr(Model, name, lambda *a, name=name, **k: calls.append(name) or pytest.fail(name))
    return calls


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of five, of which train has four."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Image.new("L", (8, 8), 30 * i).save(folder / f"{i}.png")
    monkeypatch.setenv("DIFFREP_DATA", str(folder))
    return folder


LABELS = "\n".join(["file,size", *(f"{i}.png,{i}" for i in range(5))])


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (None, {"disentanglement_images": -1}, "'folder' has no labels"),
        (LABELS, {"disentanglement_images": -1, "attributes": ("sizes",)}, "Did you mean 'size'"),
        (LABELS, {"disentanglement_images": -1}, "'folder' has 4 training images, too few for TAD and DCI: give it 5"),
        (LABELS, {"disentanglement_images": 5}, "5 images were asked for: split 'train' of 'folder' has 4"),
        (None, {"rows": (2, {"sampler": "leapfrog", "grid": "uniform_lambda", "invert_steps": 3})}, "invert_steps 3"),
        (
            None,
            {"num_images": 0, "reconstructions": "made"},
            "num_images 0 leaves .* for tasks.evaluate.reconstructions",
        ),
        (None, {"num_images": 0, "interpolate_at": 0.5}, "num_images 0 leaves .* for tasks.evaluate.interpolate_at"),
    ],
)
def test_nothing_is_begun_that_cannot_be_ended(tiny_model, tmp_path, pictures, work, labels, settings, message):
    if labels:
        (pictures / "labels.csv").write_text(labels)
    workdir = kept(tmp_path / "run")
    settings = {"num_images": 1, "without": ("lpips", "fid"), "counts": (3,)} | settings
    settings |= {"counts": ()} if "rows" in settings or "reconstructions" in settings else {}
    with pytest.raises(UserError, match=message):
        run_task("evaluate", tiny_model, workdir, dataset="folder", **settings)
    assert work == [] and [path.name for path in workdir.iterdir()] == ["config.json"]
