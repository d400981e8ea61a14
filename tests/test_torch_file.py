"""PyTorch's files read without PyTorch: what is in them comes back, and nothing that they name is run."""

import logging
import os
import pickle
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.port import files
from tests.torch_files import Call, Name, Stored, Strided, write

BOTH = pytest.mark.parametrize("old", [False, True])
A, B = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((), 7, np.int64)


def lightning(**extra):
    """What Lightning 1.4.5 saves: the state of a callback under the callback's class."""
    callback = Name("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    return {
        "epoch": 3,
        "global_step": 1234,
        "pytorch-lightning_version": "1.4.5",
        "state_dict": {"model.a": A, "ema_model.a": A + 1, "x_T": A},
        "callbacks": {callback: {"best_model_score": None, "dirpath": "checkpoints"}},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": A}}, "param_groups": []}],
        "lr_schedulers": [],
    } | extra


@BOTH
def test_a_state_dict(tmp_path, old):
    metadata = {"_metadata": Call(Name("collections", "OrderedDict"), ())}
    pairs = [["module.a", A], ["b", B], ["empty", np.zeros((0, 3), np.float16)]]
    content = Call(Name("collections", "OrderedDict"), (pairs,), metadata)
    out = files.read(write(tmp_path / "a.pt", content, old))
    assert {name: x.tolist() for name, x in out.items()} == {"a": A.tolist(), "b": 7, "empty": []}
    assert [x.dtype.name for x in out.values()] == ["float32", "int64", "float16"]
    assert out["empty"].shape == (0, 3) and (old or not out["a"].flags.writeable)


@BOTH
def test_views_of_one_storage(tmp_path, old):
    whole = np.arange(12, dtype=np.float64)
    content = {
        "transposed": Strided(whole, 0, (3, 4), (1, 3)),
        "tail": Strided(whole, 10, (2,), (1,)),
        "spread": Strided(whole, 2, (2, 3), (0, 1)),
    }
    path = write(tmp_path / "a.pt", content, old)
    assert path.stat().st_size < 2000
    out = files.read(path)
    np.testing.assert_array_equal(out["transposed"], whole.reshape(4, 3).T)
    np.testing.assert_array_equal(out["tail"], [10, 11])
    np.testing.assert_array_equal(out["spread"], [[2, 3, 4]] * 2)


@BOTH
def test_lightning_checkpoints_open_whatever_classes_they_name(tmp_path, caplog, old):
    contents = files.read_parts(write(tmp_path / "last.ckpt", lightning(), old, name="last"))
    assert contents.step == 1234 and contents.parts.keys() == {"state_dict"}
    np.testing.assert_array_equal(contents.parts["state_dict"]["ema_model.a"], A + 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "nothing was run: pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint."
    )


# Nothing is run


def commands(ran):
    """What a crafted pickle may do, each of which would make the folder `ran`."""
    system = Call(Name("os", "system"), (f"mkdir {ran}",))
    return {
        "a call": system,
        "by another name": Call(Name("posix", "system"), (f"mkdir {ran}",)),
        "eval": Call(Name("builtins", "eval"), (f"__import__('os').mkdir({str(ran)!r})",)),
        "a method of the reader's module": Call(Name("diffrep_jax.port.torch_file", "os.mkdir"), (str(ran),)),
        "inside a tensor": Call(Name("torch._utils", "_rebuild_tensor_v2"), (system, 0, (1,), (1,), False, None)),
        "as state": Call(Name("some.where", "Thing"), (), {"__init__": system}),
        "as a hook": Call(Name("torch._utils", "_rebuild_parameter"), (A, True, system)),
        "by torch": Call(Name("torch.serialization", "load"), (str(ran),)),
    }


@BOTH
@pytest.mark.parametrize("kind", commands("x"))
def test_a_crafted_file_runs_nothing(tmp_path, caplog, old, kind):
    ran = tmp_path / "ran"
    # Python's own reader does run it, so the file is what it should be.
    if kind == "a call":
        pickle.loads(_pickle_of(write(tmp_path / "probe.pt", {"a": commands(ran)[kind]})))
        assert ran.exists()
        os.rmdir(ran)
    path = write(tmp_path / "last.ckpt", lightning(hyper_parameters={"x": commands(ran)[kind]}), old)
    np.testing.assert_array_equal(files.read_parts(path).parts["state_dict"]["model.a"], A)
    assert not ran.exists()
    if kind == "a call":
        assert "nothing was run: " in caplog.text and "os.system" in caplog.text
    for content in ({"state_dict": {"model.a": A, "b": commands(ran)[kind]}}, commands(ran)[kind]):
        if kind == "as a hook":
            continue  # that is a tensor
        with pytest.raises(UserError) as refusal:
            files.read_parts(write(tmp_path / "bad.ckpt", content, old))
        assert not ran.exists() and "\n" not in str(refusal.value)


def _pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read("archive/data.pkl")


def test_the_refusal_names_what_would_have_run(tmp_path):
    call = Call(Name("os", "system"), ("true",))
    with pytest.raises(UserError, match="'a' is something that os.system makes, which was not run; save"):
        files.read(write(tmp_path / "a.pt", {"a": call}))
    with pytest.raises(UserError, match="holds something that os.system makes, which was not run, not a state dict"):
        files.read(write(tmp_path / "a.pt", call))
    with pytest.raises(UserError, match="'state_dict' is a dict with something that os.system makes"):
        files.read(write(tmp_path / "a.pt", {"state_dict": {"b": A, "a": call}}))


def test_state_and_items_change_nothing_of_the_readers_own(tmp_path):
    """BUILD on what the pickle may name: the functions, the types, and the tensor that it has just made."""
    storage = ("storage", Name("torch", "FloatStorage"), "0", "cpu", 6)
    tensor = Call(
        Name("torch._utils", "_rebuild_tensor_v2"),
        (Call(Name("torch._utils", "_rebuild_parameter"), (Stored(storage),), {"count": 10**9}), 0, (2, 3), (3, 1)),
        {"shape": (10**6,), "stride": (1,)},
    )
    out = files.read(write(tmp_path / "a.pt", {"b": A, "a": tensor}))
    np.testing.assert_array_equal(out["a"], A)


# Damage


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (Strided(A, 0, (7,), (1,)), "beyond its numbers"),
        (Strided(A, 5, (2,), (1,)), "beyond its numbers"),
        (Strided(A, 0, (2, 3), (1,)), "that none can have"),
        (Strided(A, -1, (2,), (1,)), "that none can have"),
        (Strided(A, 0, (2,), (-1,)), "that none can have"),
        (Strided(A, 0, (2.0,), (1,)), "that none can have"),
    ],
)
def test_tensors_stay_within_their_numbers(tmp_path, tensor, says):
    with pytest.raises(UserError, match=f"damaged.*{says}"):
        files.read(write(tmp_path / "a.pt", {"a": tensor}))


@BOTH
def test_storages_stay_within_the_file(tmp_path, old):
    storage = ("storage", Name("torch", "FloatStorage"), "0", "cpu", 1000)
    args = (Stored(storage), 0, (1000,), (1,), False, None)
    content = {"b": Strided(A, 0, (2,), (1,)), "a": Call(Name("torch._utils", "_rebuild_tensor_v2"), args)}
    with pytest.raises(UserError, match="damaged"):
        files.read(write(tmp_path / "a.pt", content, old))


@BOTH
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_cut_file_is_refused(tmp_path, old, kept):
    path = write(tmp_path / "a.pt", {"a": np.ones(1000, np.float32)}, old)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match="damaged"):
        files.read(path)


def test_other_zips_and_pickles_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.png", b"")
    with pytest.raises(UserError, match="no PyTorch checkpoint.*data.pkl"):
        files.read(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="no PyTorch checkpoint"):
        files.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(UserError, match="a TorchScript program"):
        files.read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(UserError, match="it was compressed"):
        files.read(path)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to see the memory in use")
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_big_files_stay_mapped(tmp_path, kind):
    """64 MB of weights cost memory when they are used, not when they are read."""

    def in_use():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    content = {str(i): np.zeros(2**20, np.float32) for i in range(16)} | {"x": np.ones(3, np.float32)}
    path = tmp_path / f"a.{kind}"
    (write if kind == "pt" else files.write_safetensors)(path, content)
    del content
    before = in_use()
    tensors = files.read(path)
    assert tensors["x"].tolist() == [1, 1, 1]
    assert in_use() - before < 24
    assert sum(float(x.sum()) for x in tensors.values()) == 3
    assert in_use() - before > 48
