"""Files of a run are whole or as they were before: `runs.layout.writing` and what writes through it."""

import json

import numpy as np
import pytest

from diffrep_jax.runs import layout
from diffrep_jax.tasks import _pictures
from tests.tiny import tiny_config


def test_numbers_that_are_not_finite_are_null(tmp_path):
    def refused(constant):
        raise AssertionError(constant)

    values = {"psnr": float("inf"), "rows": [{"r": np.float64("nan"), "mse": 0.1}], "shape": (8, 8), "none": None}
    layout.Run.at(tmp_path, tiny_config()).write_numbers("evaluate", values)
    read = json.loads((tmp_path / "evaluate" / "metrics.json").read_text(), parse_constant=refused)
    assert read == {"psnr": None, "rows": [{"r": None, "mse": 0.1}], "shape": [8, 8], "none": None}


class Unwritable:
    """Fails when it is made an array or text, in the middle of a file."""

    def __array__(self, *arguments, **keywords):
        raise RuntimeError("no array")


WRITERS = {
    "text": (lambda path: layout.write_text(path, "new"), lambda path: layout.write_text(path, "\ud800")),
    "json": (lambda path: layout.write_json(path, {"a": 1}), lambda path: layout.write_json(path, {"a": object()})),
    "arrays": (
        lambda path: layout.write_arrays(path, first=np.ones(3)),
        lambda path: layout.write_arrays(path, first=np.ones(1000), second=Unwritable()),
    ),
    "png": (
        lambda path: _pictures.save_png(path, np.zeros((4, 4, 3), np.uint8)),
        lambda path: _pictures.save_png(path, np.zeros((4, 4, 7), np.uint8)),
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("old", [b"old content", None])
def test_where_the_writer_fails_the_old_file_stays(kind, old, tmp_path):
    path = tmp_path / "with space é.bin"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises((RuntimeError, TypeError, UnicodeError)):
        WRITERS[kind][1](path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([] if old is None else [old])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_new_file_takes_the_place_of_the_old_one(kind, tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old content" * 1000)
    WRITERS[kind][0](path)
    assert list(tmp_path.iterdir()) == [path] and b"old content" not in path.read_bytes()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_until_it_is_whole_a_file_is_not_there(error, tmp_path):
    """Neither for readers meanwhile nor after whatever ends the program."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(error), layout.writing(path) as file:
        file.write(b"the first half")
        file.flush()
        assert path.read_text() == "old"
        raise error
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "old"
    with layout.writing(path) as file:
        file.write(b"all of it")
        assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "all of it"


def test_where_the_place_is_taken_by_a_folder_nothing_is_left(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("kept")
    with pytest.raises(OSError):
        layout.write_text(tmp_path / "taken", "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "file"]
