"""The report's page is sound and stands alone; Markdown and JSON say the same."""

import base64
import io
import json
import math
import re

import numpy as np
import pytest
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.report import values
from diffrep_jax.report.html import page
from diffrep_jax.report.markdown import markdown
from tests import made_run
from tests.report_parts import Page, blocks, report_of


@pytest.fixture(scope="module")
def ffhq(tmp_path_factory):
    return made_run.ffhq_run(tmp_path_factory.mktemp("runs") / "ffhq")


# --- the page


@pytest.fixture(scope="module")
def ffhq_page(ffhq):
    return page(report_of(ffhq), ffhq)


def test_the_page_nests_and_holds_everything_that_it_shows(ffhq_page):
    read = Page(ffhq_page)
    images = read.all("img")
    assert len(images) == 6 and all(image["alt"] for image in images)
    for image in images:
        kind, _, data = image["src"].partition(";base64,")
        assert kind in ("data:image/png", "data:image/gif", "data:image/jpeg")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
            assert f"data:image/{picture.format.lower()}" == kind
    loading = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
    loads = [v for _, attributes in read.elements for k, v in attributes.items() if k in loading]
    assert all(value.startswith(("data:image/", "#")) for value in loads)
    assert not re.search(r"url\(|@import|https?://|<script|<link|<iframe", ffhq_page)
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in read.all("a")} == set(ids)  # each section has its link


def test_the_page_is_for_all_readers(ffhq_page):
    read = Page(ffhq_page)
    assert read.all("html")[0]["lang"] == "en" and "width=device-width" in ffhq_page
    assert [tag for tag, _ in read.headings].count("h1") == 1
    assert {tag for tag, _ in read.headings} == {"h1", "h2"}
    assert len(read.all("table")) >= 10 and len(read.all("main")) == 1
    for svg in read.all("svg"):
        assert svg["role"] == "img" and svg["aria-label"].startswith("Chart: ")
    assert "prefers-color-scheme: dark" in ffhq_page


def test_a_page_stays_below_three_megabytes_and_says_what_was_reduced(tmp_path, ffhq):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1})
    made_run.picture(run / "reconstruct" / "grid.png", 1600, 1600)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(run / "reconstruct" / "small.png")
    large, small = 2.5e6, 1e3
    assert (run / "reconstruct" / "grid.png").stat().st_size > large
    text = page(report_of(run), run)
    assert len(text) < 3e6
    images = Page(text).all("img")
    assert [image["src"][:15] for image in images] == ["data:image/jpeg", "data:image/png;"]
    assert len(images[1]["src"]) < small
    assert text.count("Reduced to fit this page") == 1 and "reconstruct/grid.png</code>" in text


def test_a_damaged_picture_is_an_error_that_names_it(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1})
    made_run.picture(run / "reconstruct" / "grid.png", 64, 64)
    whole = (run / "reconstruct" / "grid.png").read_bytes()
    (run / "reconstruct" / "grid.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"grid\.png cannot be read .*--task=reconstruct again"):
        page(report_of(run), run)


def test_names_are_shown_and_never_markup(tmp_path):
    """A folder, a class and a text that would be markup in HTML or in Markdown."""
    evil = '<b>&"|*x*'
    run = made_run.digits_run(tmp_path / evil)
    report = made_run.probed("digits", "classes", {"ap": np.array([0.5, 0.25])}, [evil, "`1`"])
    made_run.write(run / "probe" / "metrics.json", report)
    made_run.write(run / "evaluate" / "metrics.json", {"rows": [], "missing": {"fid": evil}})
    made_run.write(run / "interpolate" / "metrics.json", {"first": evil})
    read = Page(page(report_of(run), run))
    assert all(attributes == {} for attributes in read.all("b"))
    shown = "".join(read.words)
    assert shown.count(evil) >= 4
    text = markdown(report_of(run), run, run / "report")
    assert "<b>" not in re.sub(r"```.*?```", "", text, flags=re.S)
    assert r'&lt;b&gt;&amp;"\|\*x\*' in text


# --- the same in Markdown and JSON


def shown_numbers(text):
    """The multiset of numbers, but those of bullets, units and axis labels, sorted."""
    return sorted(re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])", text))


def test_markdown_tells_the_words_and_numbers_of_the_page(ffhq):
    document = report_of(ffhq)
    for section in document["sections"]:
        section["blocks"] = [block for block in section["blocks"] if block["kind"] not in ("chart", "picture")]
    words = " ".join(Page(page(document, ffhq)).words)
    text = markdown(document, ffhq, ffhq / "report")
    links = [section["title"] for section in document["sections"]]
    drawn_twice = shown_numbers(" ".join(links))  # the page lists its sections, Markdown does not
    assert shown_numbers(words) == sorted(shown_numbers(text) + drawn_twice)
    assert len(shown_numbers(text)) > 400


def test_markdown_tables_have_cells_for_all_columns_and_pictures_their_files(ffhq):
    text = markdown(report_of(ffhq), ffhq, ffhq / "report")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) > 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(pictures) == 6
    assert all((ffhq / "report" / path).resolve().is_file() for path in pictures)


def test_json_holds_the_values_and_is_valid(ffhq):
    document = json.loads(json.dumps(report_of(ffhq), allow_nan=False))
    table = next(block for block in blocks(document, "table") if "Table 2: Reconstruction of" in block["caption"])
    values = {row[0]: row[1:] for row in table["rows"]}
    assert [cell["value"] for cell in values["DBAE (stochastic encoder)"]] == [512, 0.920, 0.094, 4.81e-3]
    assert values["DBAE (stochastic encoder)"][1]["text"] == "0.920"
    bars = next(block for block in blocks(document, "bars") if "average precision" in block["caption"])
    probe = made_run.celeba_probe()["attributes"]["each"]["ap"]
    assert {k: v for k, v in bars["values"].items() if v is not None} == {k: v for k, v in probe.items() if v == v}
    assert bars["values"]["Attribute_3"] is None and len(bars["values"]) == 40


def test_what_is_not_a_number_is_a_dash(ffhq, ffhq_page):
    assert re.search(r"<span>Attribute_3</span>.*?<b>–</b>", ffhq_page)
    assert re.search(r"<dt>informativeness</dt><dd>–</dd>", ffhq_page)
    assert not re.search(r"\bNaN\b|\bnan\b|\bNone\b|\binf\b", " ".join(Page(ffhq_page).words))
    assert "| Attribute\\_3 | – |" in markdown(report_of(ffhq), ffhq, ffhq)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00269147, "0.002691"),
        (0.000482, "4.82e-4"),
        (-0.00005, "-5e-5"),
        (0.0, "0"),
        (1.0, "1"),
        (51234.6, "51,235"),
        (1_020_000, "1,020,000"),
        (math.inf, "–"),
        (None, "–"),
        (True, "yes"),
        ([1, None, "a"], "1, –, a"),
        ({"value": 0.65, "text": "0.650"}, "0.650"),
    ],
)
def test_values_are_written_for_readers(value, shown):
    assert values.text(value) == shown


def test_json_is_also_for_programs(ffhq):
    document = json.loads(json.dumps(report_of(ffhq)))
    mse = [one for one in document["measured"] if one["measure"] == "reconstruction_mse"]
    assert [one["settings"]["evaluations"] for one in mse] == [10, 20, 50, 100, 19, 39, 99, 199, 100, 100]
    assert document["run"]["config"]["method"]["name"] == "dbae" and len(document["run"]["starts"]) == 2
    assert document["run"]["training_images"] == 1_020_000 * 256
