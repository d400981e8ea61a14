"""What a run's training leaves in its folder: checkpoints that are whole, curves without repeats, what made it."""

import json
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffrep_jax import sharding
from diffrep_jax.errors import UserError
from diffrep_jax.runs import checkpoint, layout, provenance
from diffrep_jax.train.state import TrainState
from diffrep_jax.train.writer import Writer


def small_state(step=0, value=1.0):
    tree = {"a": {"kernel": jnp.full((2, 3), value)}}
    return TrainState(jnp.asarray(step, jnp.int32), tree, {}, {"params": tree, "batch_stats": {}}, (tree, ()))


def test_checkpoints_keep_the_last_and_every_mth(tmp_path):
    with checkpoint.opened(tmp_path, 2, 4, writer=True) as checkpoints:
        for step in range(1, 8):
            checkpoints.save(step, small_state(step, value=float(step)).parts())
    kept = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert kept == [4, 6, 7]
    with checkpoint.opened(tmp_path) as checkpoints:
        restored = TrainState(**checkpoints.restore(small_state().parts()))
    assert int(restored.step) == 7
    np.testing.assert_array_equal(restored.opt_state[0]["a"]["kernel"], np.full((2, 3), 7.0))


def test_a_checkpoint_that_does_not_fit_names_the_leaf(tmp_path):
    with checkpoint.opened(tmp_path, writer=True) as checkpoints:
        checkpoints.save(1, small_state(1).parts())
    other = small_state().replace(params={"a": {"kernel": jnp.ones((2, 4))}})
    with checkpoint.opened(tmp_path) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.restore(other.parts())
    assert "params.a.kernel" in str(error.value) and "(2, 3)" in str(error.value) and "(2, 4)" in str(error.value)


def test_an_unfinished_save_is_ignored(tmp_path):
    with checkpoint.opened(tmp_path, 2, writer=True) as checkpoints:
        checkpoints.save(1, small_state(1).parts())
    left = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (left / "params").mkdir(parents=True)
    with checkpoint.opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 1
        assert int(checkpoints.restore(small_state().parts())["step"]) == 1
    assert left.exists()  # a reader deletes nothing
    with checkpoint.opened(tmp_path, 2, writer=True) as checkpoints:
        checkpoints.save(2, small_state(2).parts())
    assert not left.exists() and (tmp_path / "checkpoints" / "2").is_dir()


def test_no_checkpoint_is_an_error_that_says_so(tmp_path):
    with checkpoint.opened(tmp_path) as checkpoints, pytest.raises(UserError, match="No checkpoint in .*train first"):
        checkpoints.restore(small_state().parts())


def test_the_writer_drops_what_will_be_done_again(tmp_path):
    with Writer(tmp_path, start_step=0) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a line cut off by a kill
    with Writer(tmp_path, start_step=2) as writer:
        writer.scalars(3, {"loss": 30.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    times = [line.pop("time") for line in lines]
    assert times == sorted(times) and abs(times[-1] - time.time()) < 60
    assert lines == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 30.0}]


def test_what_made_a_run_is_recorded(tmp_path):
    """Each start is an entry; those whose steps are all done again go, as their lines do."""
    mesh = sharding.make_mesh()
    for step in (0, 3, 5, 3):
        provenance.record_start(tmp_path, step, mesh, data={}, changed={})
    starts = provenance.starts(tmp_path)
    assert [start["from_step"] for start in starts] == [0, 3]
    start = starts[-1]
    assert (start["platform"], start["devices"], start["processes"]) == (jax.default_backend(), jax.device_count(), 1)
    assert start["device"] == jax.devices()[0].device_kind and start["versions"]["jax"] == jax.__version__
    assert abs(start["began"] - time.time()) < 600
    assert [path.name for path in tmp_path.iterdir()] == [layout.STARTS]


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_checkout_and_of_nothing_around_it(tmp_path, monkeypatch):
    package = tmp_path / "repository" / "diffrep_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance.diffrep_jax, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert (provenance.software()["commit"], provenance.software()["modified"]) == (None, None)  # no repository
    git(package.parent, "init", "-q")
    assert provenance.software()["commit"] is None  # a repository that surrounds it
    git(package.parent, "add", ".")
    git(package.parent, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    software = provenance.software()
    assert software["commit"] == git(package.parent, "rev-parse", "HEAD") and software["modified"] is False
    (package / "__init__.py").write_text("1")
    assert provenance.software()["modified"] is True
    monkeypatch.setenv("PATH", "")
    assert provenance.software()["commit"] is None  # no git at all
