"""The import engine and the file reader: strict matching, layouts that invert, refusals in one line."""

import json
import struct
import sys

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.port import engine, files
from diffrep_jax.port.engine import CONV, NORM, Rule, Table

RULES = (
    Rule("blocks.{n}.conv", "net/{n}/conv", CONV),
    Rule("blocks.{n}.norm", "net/{n}/norm", NORM),
    Rule("spare", None, NORM),
)


@pytest.fixture
def table():
    return Table(RULES, {"n": {"0": "a", "1": "b"}})


def tensors():
    rng = np.random.default_rng(0)
    shapes = {"0.conv.weight": (4, 3, 3, 3), "0.conv.bias": (4,), "1.norm.weight": (5,), "1.norm.bias": (5,)}
    return {f"blocks.{name}": rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def template():
    return {
        "params": {
            "net": {
                "a": {"conv": {"kernel": np.zeros((3, 3, 3, 4), np.float32), "bias": np.zeros(4, np.float32)}},
                "b": {"norm": {"scale": np.zeros(5, np.float32), "bias": np.zeros(5, np.float32)}},
            }
        }
    }


def test_values_go_where_the_rules_say(table):
    official = tensors() | {"spare.bias": np.zeros(1)}
    net = table.to_variables(official, template(), "x.pt")["params"]["net"]
    assert net["a"]["conv"]["kernel"][2, 0, 1, 3] == official["blocks.0.conv.weight"][3, 1, 2, 0]
    np.testing.assert_array_equal(net["b"]["norm"]["scale"], official["blocks.1.norm.weight"])
    assert table.match(official, template()).ignored == ["spare.bias"]


def test_round_trip_is_bitwise(table):
    back = table.to_official(table.to_variables(tensors(), template(), "x.pt"))
    assert back.keys() == tensors().keys()
    for name, value in tensors().items():
        np.testing.assert_array_equal(back[name], value)


def test_one_error_lists_the_names_of_both_sides(table):
    official = tensors()
    official["blocks.0.conv.scale"] = official.pop("blocks.0.conv.bias")
    official["blocks.7.norm.bias"] = official.pop("blocks.1.norm.bias")
    with pytest.raises(UserError) as error:
        table.to_variables(official, template(), "x.pt")
    for name in ("x.pt", "blocks.0.conv.scale", "blocks.7.norm.bias", "net/a/conv/bias", "net/b/norm/bias"):
        assert name in str(error.value)


def test_a_known_name_without_a_leaf_is_unmatched(table):
    official = tensors() | {"blocks.0.norm.bias": np.zeros(4)}
    assert table.match(official, template()).unmatched_names == ["blocks.0.norm.bias"]


def test_a_wrong_shape_is_named_with_both(table):
    official = tensors() | {"blocks.0.conv.weight": np.zeros((4, 2, 3, 3)), "blocks.0.conv.bias": np.zeros((4, 1))}
    with pytest.raises(UserError, match=r"conv\.weight \[4, 2, 3, 3\] for params/net/a/conv/kernel \[3, 3, 3, 4\]"):
        table.to_variables(official, template(), "x.pt")


def test_leaves_that_no_file_has_get_their_value():
    table = Table(RULES, {"n": {"0": "a", "1": "b"}}, {"batch_stats/codes/std": 1.0})
    ours = template() | {"batch_stats": {"codes": {"std": np.zeros(3, np.float32)}}}
    variables = table.to_variables(tensors(), ours, "x.pt")
    np.testing.assert_array_equal(variables["batch_stats"]["codes"]["std"], [1, 1, 1])
    assert table.to_official(variables).keys() == tensors().keys()


def test_a_field_must_be_one_to_one():
    with pytest.raises(ValueError, match="one to one"):
        Table(RULES, {"n": {"0": "a", "1": "a"}})


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (engine.IDENTITY, (5,)),
        (engine.LINEAR, (4, 3)),
        (engine.CONV2D, (4, 3, 2, 5)),
        (engine.CONV1D, (4, 3, 1)),
        (engine.CONV1X1_DENSE, (4, 3, 1, 1)),
        (engine.TRANSPOSED_CONV, (4, 3, 2, 5)),
        (engine.flat_kernel(3), (27,)),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_layouts_invert(layout, shape):
    x = np.random.default_rng(0).normal(size=shape)
    back = layout.to_official(layout.to_ours(x))
    assert back.shape == shape
    np.testing.assert_array_equal(back, x)


def test_a_flat_kernel_goes_with_its_kernel():
    """u^T W v is the same number on both sides, W a convolution's weight as a matrix [out, inputs]."""
    rng = np.random.default_rng(0)
    weight, v = rng.normal(size=(4, 5, 3, 3)), rng.normal(size=45)
    ours = engine.CONV2D.to_ours(weight).reshape(-1, 4).T @ engine.flat_kernel(3).to_ours(v)
    np.testing.assert_allclose(ours, weight.reshape(4, -1) @ v)


# Files


def write_safetensors(path, entries):
    """entries: {name: (dtype, shape, bytes)}."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, content) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_safetensors(tmp_path):
    entries = {
        "module.a": ("F32", [2, 1], struct.pack("<2f", 1.5, -2)),
        "module.b": ("BF16", [2], b"\x80\x3f\x00\xc0"),
        "module.c": ("I64", [], struct.pack("<q", 7)),
        "module.d": ("F16", [0], b""),
    }
    write_safetensors(tmp_path / "a.safetensors", entries)
    out = files.read(tmp_path / "a.safetensors")
    assert {name: value.tolist() for name, value in out.items()} == {"a": [[1.5], [-2]], "b": [1, -2], "c": 7, "d": []}
    assert out["b"].dtype == np.float32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 a picture", "neither"),
        (struct.pack("<Q", 99) + b'{"a": 1}', "cut short"),
        (struct.pack("<Q", 8) + b'{"a": 1}', "damaged"),
        (struct.pack("<Q", 8) + b"{'a': 1}", "damaged"),
        (struct.pack("<Q", 2) + b"{}", "no tensors"),
    ],
)
def test_a_foreign_file_is_one_line(tmp_path, content, message):
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        files.read(path)
    assert str(path) in str(error.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        files.read(tmp_path / "none.pt")


def test_a_cut_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": ("F32", [4], bytes(16))})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut short"):
        files.read(path)


def test_without_torch_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'diffrep_jax\[torch\]'"):
        files.write_torch(tmp_path / "model.pt", {"a": np.ones(1)})


class Greedy:
    """Pickles as a call."""

    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.torch
class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("modern", [True, False])
    def test_state_dict(self, torch, tmp_path, modern):
        path = tmp_path / "ema_0.9999_10.pt"
        content = {"module.a": torch.arange(6.0).reshape(2, 3).T, "module.b": torch.ones(2).bfloat16()}
        torch.save(content, path, _use_new_zipfile_serialization=modern)
        out = files.read(path)
        assert {name: value.tolist() for name, value in out.items()} == {"a": [[0, 3], [1, 4], [2, 5]], "b": [1, 1]}
        assert {value.dtype for value in out.values()} == {np.dtype(np.float32)}

    def test_wrappers_are_taken_out_of_names_wherever_they_are(self, torch, tmp_path):
        names = ["module._orig_mod.a.weight", "_orig_mod.b.module.0.bias", "c._orig_mod.weight", "d.module_list.weight"]
        torch.save({name: torch.full((1,), float(i)) for i, name in enumerate(names)}, tmp_path / "a.pt")
        out = files.read(tmp_path / "a.pt")
        short = ["a.weight", "b.0.bias", "c.weight", "d.module_list.weight"]
        assert {name: float(x[0]) for name, x in out.items()} == {name: i for i, name in enumerate(short)}

    def test_one_weight_by_two_names_is_refused(self, torch, tmp_path):
        torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pt")
        with pytest.raises(UserError, match="a.pt has both module.a and a"):
            files.read(tmp_path / "a.pt")

    @pytest.mark.parametrize("modern", [True, False])
    def test_the_state_dicts_of_a_trainer(self, torch, tmp_path, modern):
        layer = torch.nn.Linear(2, 3)
        optimizer = torch.optim.Adam(layer.parameters())
        layer(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        content = {
            "step": 12,
            "encoder": layer.state_dict(),
            "ema_encoder": {f"_orig_mod.{name}": x.bfloat16() for name, x in layer.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "scaler": {"scale": 65536.0, "growth_factor": 2.0},
            "empty": {},
        }
        path = tmp_path / "latest.pt"
        torch.save(content, path, _use_new_zipfile_serialization=modern)
        out = files.read_parts(path)
        assert out.step == 12 and out.parts.keys() == {"encoder", "ema_encoder"}
        np.testing.assert_array_equal(out.parts["encoder"]["weight"], layer.weight.detach().numpy())
        assert {name: x.dtype for name, x in out.parts["ema_encoder"].items()} == dict.fromkeys(
            ("weight", "bias"), np.dtype(np.float32)
        )
        with pytest.raises(UserError, match="latest.pt is no plain state dict: it holds encoder, ema_encoder"):
            files.read(path)

    def test_what_is_there_twice_takes_its_space_once(self, torch, tmp_path):
        state = {"w": np.arange(2.0**16, dtype=np.float32)}
        files.write_torch(tmp_path / "a.pt", {"step": 3, "one": state, "ema_one": state})
        assert (tmp_path / "a.pt").stat().st_size < 1.5 * 2**18
        out = files.read_parts(tmp_path / "a.pt")
        assert out.step == 3
        np.testing.assert_array_equal(out.parts["ema_one"]["w"], state["w"])

    def test_code_is_refused_and_does_not_run(self, torch, tmp_path, capsys):
        torch.save({"a": torch.ones(1), "b": Greedy()}, tmp_path / "a.pt")
        with pytest.raises(UserError, match="print makes, which was not run"):
            files.read(tmp_path / "a.pt")
        assert "this ran" not in capsys.readouterr().out

    @pytest.mark.parametrize("content", [[1, 2], {}, {"state": {"a": 1}}, {"step": 3}, {1: 2}])
    def test_something_else_than_a_state_dict_is_refused(self, torch, tmp_path, content):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(UserError, match="state dict"):
            files.read(tmp_path / "a.pt")

    @pytest.mark.parametrize("modern", [True, False])
    @pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
    def test_a_cut_file_is_refused(self, torch, tmp_path, modern, kept):
        path = tmp_path / "a.pt"
        torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=modern)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(UserError, match="damaged"):
            files.read(path)
