"""The pair of training steps: its table of given numbers, what it refuses, and the size of the yardstick."""

import importlib.util

import pytest

from benchmarks import pair
from diffrep_jax.errors import UserError
from diffrep_jax.methods.parameters import shapes
from tests.networks import count, small_dbae


def row(*seconds, user=4.0, system=0.5, parameters=7):
    return {"all_seconds": list(seconds), "user": user, "system": system, "parameters": parameters}


def test_the_table_has_medians_minima_and_the_ratio_of_each_turn():
    lines = pair.table([(row(2, 3, 4), row(6, 6, 9)), (row(4, 5, 4), row(5, 4, 10, user=9.0))]).splitlines()
    assert lines[2] == "| diffrep_jax | 4.00 | 2.00 | 4.00 | 0.50 | **0.67** (0.50, 0.80) |"
    assert lines[3] == "| PyTorch | 6.00 | 4.00 | 6.50 | 0.50 | 1 |"


def test_networks_of_other_sizes_are_no_pair():
    pair.check_same(row(1), row(2))
    with pytest.raises(UserError, match="7 parameters here and 8 in"):
        pair.check_same(row(1), row(2, parameters=8))


def test_a_python_without_torch_is_refused_before_anything_is_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(pair, "ours", lambda flags: pytest.fail("our step was timed"))
    without = tmp_path / "python"
    without.write_text("#!/bin/sh\necho 'ModuleNotFoundError: No module named torch' >&2; exit 1\n")
    without.chmod(0o755)
    for python, reason in ((tmp_path / "nowhere", "does not run: No such file"), (without, "No module named torch")):
        with pytest.raises(UserError, match=f"{reason}.*--torch_python"):
            pair.main([f"--torch_python={python}"])


@pytest.mark.torch
def test_the_yardstick_has_our_parameters():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs PyTorch")
    from benchmarks.torch_step import DBAE

    method = small_dbae(generator={"width": 8})
    fields = {name: getattr(method, name) for name in method.__dataclass_fields__}
    assert sum(p.numel() for p in DBAE(fields).parameters()) == count(shapes(method)["params"])
