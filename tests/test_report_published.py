"""The papers' numbers as they were read off the papers, and the refusal of a file that does not hold them so."""

import math
import pathlib
import tomllib

import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.report import compare
from diffrep_jax.report.published import read, tables
from diffrep_jax.tasks import base
from tests.report_parts import TASKS

DBAE, DIFFAE = "Diffusion Bridge AutoEncoders", "Diffusion Autoencoders"


def published(paper, place, dataset, method):
    """The row of a method as {column: value}; there must be one."""
    fit = [t for t in tables() if t.paper.startswith(paper) and t.place == place and t.dataset == dataset]
    (table,) = (table for table in fit if method in table.rows)
    return dict(zip([column.name for column in table.columns], table.rows[method], strict=True))


@pytest.mark.parametrize(
    ("paper", "place", "dataset", "method", "values"),
    [  # read off the papers again, not copied from the file
        (DBAE, "Table 1", "celeba", "DBAE-d (deterministic encoder)", ".650 .635 .413"),
        (DBAE, "Table 1", "celeba", "SimCLR", ".597 .474 .603"),
        (DBAE, "Table 1", "ffhq", "DBAE (stochastic encoder)", ".664 .675 .332"),
        (DBAE, "Table 1", "ffhq", "DiTi", ".614 .622 .384"),
        (DBAE, "Table 1", "ffhq", "IB-GAN", ".428 .260 .644"),
        (DBAE, "Table 2", "ffhq", "PDAE, inferred x_T", "49,664 .994 .007 3.84e-5"),
        (DBAE, "Table 2", "ffhq", "DDIM, inferred x_T", "49,152 .917 .063 .002"),
        (DBAE, "Table 2", "ffhq", "DBAE-d (deterministic encoder)", "512 .953 .072 2.49e-3"),
        (DIFFAE, "Table 2", "ffhq", "130 M images, code of 512", ".677 .073 .007"),
        (DIFFAE, "Table 2", "ffhq", "48 M images, code of 512", ".631 .092 .010"),
        (DIFFAE, "Table 2", "ffhq", "48 M images, code of 256", ".606 .105 .011"),
        (DIFFAE, "Table 2", "ffhq", "48 M images, code of 128", ".582 .124 .013"),
        (DIFFAE, "Table 2", "ffhq", "48 M images, code of 64", ".521 .162 .020"),
        (DIFFAE, "", "ffhq", "DiffAE", "10.59"),
        (DIFFAE, "", "ffhq", "DDIM", "12.03"),
        (DIFFAE, "", None, "StyleGAN-W", ".891"),
        ("Several", "", "celeba", "DisDiff", ".305 18.2"),
        ("Several", "", "celeba", "EncDiff", "- 14.8"),
        ("Bridge", "", None, "DBMSolver", "20 - 2.06"),
        ("Bridge", "", None, "DDBM", "118 1.83 4.43"),
        ("Cost", "counted, a multiply-add as 2", None, "FFHQ 128 x 128", "186.5 19.0 10.9 156.6 560"),
    ],
)
def test_published_numbers_are_the_papers(paper, place, dataset, method, values):
    assert list(published(paper, place, dataset, method).values()) == ["" if v == "-" else v for v in values.split()]


def test_columns_are_those_of_the_papers():
    assert list(published(DBAE, "Table 1", "ffhq", "DiTi")) == ["AP on CelebA", "r on LFW", "MSE on LFW"]
    assert list(published(DBAE, "Table 2", "ffhq", "PDAE, inferred x_T")) == ["size of code", "SSIM", "LPIPS", "MSE"]
    assert list(published(DIFFAE, "Table 2", "ffhq", "48 M images, code of 64")) == ["SSIM", "LPIPS", "MSE"]
    assert list(published("Several", "", "celeba", "DisDiff")) == ["TAD", "FID"]


def test_settings_of_a_protocol_hold_for_its_columns():
    """DBAE's scripts: Euler with 100 steps for MSE and SSIM, churn 0.33 with 333 steps for LPIPS."""
    (table,) = (table for table in tables() if table.title.startswith("Reconstruction of CelebA-HQ"))
    settings = {column.name: column.settings for column in table.columns}
    for name, steps, churn in (("SSIM", 100, 0.0), ("MSE", 100, 0.0), ("LPIPS", 333, 0.33)):
        assert (settings[name]["steps"], settings[name]["churn_step_ratio"]) == (steps, churn)
        assert settings[name]["images"] == 30_000 and settings[name]["grid"] == "karras"
    assert "evaluations" not in settings["LPIPS"] and "window" not in settings["MSE"]
    (pixels,) = (remark for remark in table.columns[3].remarks)
    assert "  " not in pixels and pixels in table.columns[1].remarks and len(table.columns[1].remarks) == 2


def test_published_tables_are_whole():
    for table in tables():
        for method, row in table.rows.items():
            assert len(row) == len(table.columns), (table.title, method)
            numbers = [compare.printed(text) for text in row]
            assert all(one is None or math.isfinite(one["value"]) for one in numbers)
        assert table.ours.keys() <= table.rows.keys(), table.title
        assert all(not c.task or c.task[0] in (*base.names(), *TASKS) for c in table.columns)


SOUND = """
[protocols.p]
settings = { steps = 100 }
[[protocols.p.columns]]
name = "MSE"
better = "lower"
[[protocols.p.columns]]
name = "SSIM"
[[tables]]
paper = "P"
title = "T"
protocol = "p"
rows = [["a", ".5", ""], ["b", "1,024", "2e-3"]]
[tables.ours]
a = { name = "dbae" }
"""


def test_a_sound_file_is_read():
    (table,) = read(SOUND)
    assert table.rows == {"a": (".5", ""), "b": ("1,024", "2e-3")} and table.dataset is None
    assert [compare.printed(value) for value in table.rows["a"]] == [{"value": 0.5, "text": "0.5"}, None]
    assert table.columns[1].settings == {"steps": 100}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            '["a", ".5", ""]',
            '["a", ".5"]',
            r"table 1 \(T\): the row 'a' has 1 values for 2 columns; .*none is published",
        ),
        ('"2e-3"', '"n/a"', r"table 1 \(T\): 'n/a' in the row 'b' is no number"),
        ('"2e-3"', "2e-3", r"the row \['b', '1,024', 0.002\] is no list of texts; write numbers as text"),
        ('["b", ', '["a", ', "the row 'a' is there twice"),
        ('protocol = "p"', 'protocol = "q"', "Unknown protocol 'q' in published.toml, table 1"),
        ('title = "T"', "", "published.toml, table 1 lacks title"),
        ('title = "T"', 'titel = "T"', "Unknown field 'titel' in published.toml, table 1. Did you mean 'title'"),
        ('title = "T"', "title = 3", "title=3 must be of the type str"),
        (
            'better = "lower"',
            'better = "smaller"',
            "Unknown value 'smaller' in published.toml, protocol p, column 1, better",
        ),
        ('name = "SSIM"', 'measure = "ssim"', "protocol p, column 2 lacks name"),
        ('a = { name = "dbae" }', 'c = { name = "dbae" }', "Unknown row 'c' in published.toml, table 1"),
        ("[protocols.p]", "[protocols.p", "published.toml cannot be read as TOML"),
        ("[tables.ours]", "[other]", "Unknown field 'other' in published.toml"),
    ],
)
def test_a_malformed_table_is_refused(old, new, says):
    assert old in SOUND
    with pytest.raises(UserError, match=says):
        read(SOUND.replace(old, new))


def test_an_installation_has_the_files_that_a_report_needs():
    root = pathlib.Path(__file__).parents[1]
    packaged = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = {path.name for path in (root / "diffrep_jax" / "report").iterdir() if path.is_file()}
    assert {name for name in files if not name.endswith(".py")} == set(packaged["diffrep_jax.report"])
