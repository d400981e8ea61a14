"""The report: its page is sound, Markdown and JSON tell the same, the papers' numbers and protocols are right."""

import base64
import html.parser
import io
import json
import math
import os
import re

import numpy as np
import pytest
from diffrep_jax.train.provenance import software
from PIL import Image

from diffrep_jax.errors import UserError
from diffrep_jax.report import charts, compare, run_sections, values
from diffrep_jax.report.collect import collect
from diffrep_jax.report.document import document
from diffrep_jax.report.html import page
from diffrep_jax.report.markdown import markdown
from diffrep_jax.report.measured import AS_PUBLISHED, INFERRED, THIS, WAYS, measured
from diffrep_jax.report.published import TABLES
from diffrep_jax.tasks import base
from launch import hooks, main
from tests import made_run
from tests.tiny import tiny_config

TASKS = ("counterfactual", "evaluate", "interpolate", "manipulate", "probe", "reconstruct", "report", "sample")
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Reads a page, refuses what does not nest, and keeps elements, attributes and the words that are shown."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.elements, self.words, self.headings = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        assert len(attributes) == len(dict(attributes)), f"an attribute twice in <{tag}>"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> in {self.stack}"
        self.stack.pop()

    def handle_data(self, data):
        if not {"style", "title"} & set(self.stack):
            self.words.append(data)
        if self.stack and re.fullmatch("h[1-6]", self.stack[-1]):
            self.headings.append((self.stack[-1], data))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def ffhq(tmp_path_factory):
    return made_run.ffhq_run(tmp_path_factory.mktemp("runs") / "ffhq")


def told(folder, tasks=TASKS):
    return document(collect(folder), "DBAE", tasks, software())


def blocks(document, kind):
    return [block for section in document["sections"] for block in section["blocks"] if block["kind"] == kind]


# --- the page


@pytest.fixture(scope="module")
def ffhq_page(ffhq):
    return page(told(ffhq), ffhq)


def test_the_page_nests_and_holds_everything_that_it_shows(ffhq_page):
    found = Page(ffhq_page)
    images = found.all("img")
    assert len(images) == 6 and all(image["alt"] for image in images)
    for image in images:
        kind, _, data = image["src"].partition(";base64,")
        assert kind in ("data:image/png", "data:image/gif", "data:image/jpeg")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
            assert f"data:image/{picture.format.lower()}" == kind
    loading = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
    loads = [v for _, attributes in found.elements for k, v in attributes.items() if k in loading]
    assert all(value.startswith(("data:image/", "#")) for value in loads)
    assert not re.search(r"url\(|@import|https?://|<script|<link|<iframe", ffhq_page)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in found.all("a")} == set(ids)  # each section has its link


def test_the_page_is_for_all_readers(ffhq_page):
    found = Page(ffhq_page)
    assert found.all("html")[0]["lang"] == "en" and "width=device-width" in ffhq_page
    assert [tag for tag, _ in found.headings].count("h1") == 1
    assert {tag for tag, _ in found.headings} == {"h1", "h2"}
    assert len(found.all("table")) >= 10 and len(found.all("main")) == 1
    for svg in found.all("svg"):
        assert svg["role"] == "img" and svg["aria-label"].startswith("Chart: ")
    assert "prefers-color-scheme: dark" in ffhq_page


def test_a_page_stays_below_three_megabytes_and_says_what_was_reduced(tmp_path, ffhq):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1})
    made_run.picture(run / "reconstruct" / "grid.png", 1600, 1600)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(run / "reconstruct" / "small.png")
    large, small = 2.5e6, 1e3
    assert (run / "reconstruct" / "grid.png").stat().st_size > large
    text = page(told(run), run)
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
        page(told(run), run)


def test_names_are_shown_and_never_markup(tmp_path):
    """A folder, a class and a text that would be markup in HTML or in Markdown."""
    evil = '<b>&"|*x*'
    run = made_run.digits_run(tmp_path / evil)
    report = made_run.probed("digits", "classes", {"ap": np.array([0.5, 0.25])}, [evil, "`1`"])
    made_run.write(run / "probe" / "metrics.json", report)
    made_run.write(run / "evaluate" / "metrics.json", {"rows": [], "missing": {"fid": evil}})
    made_run.write(run / "interpolate" / "metrics.json", {"first": evil})
    found = Page(page(told(run), run))
    assert all(attributes == {} for attributes in found.all("b"))
    shown = "".join(found.words)
    assert shown.count(evil) >= 4
    text = markdown(told(run), run, run / "report")
    assert "<b>" not in re.sub(r"```.*?```", "", text, flags=re.S)
    assert r'&lt;b&gt;&amp;"\|\*x\*' in text


# --- the same in Markdown and JSON


def shown_numbers(text):
    """The multiset of numbers, but those of bullets, units and axis labels, sorted."""
    return sorted(re.findall(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w])", text))


def test_markdown_tells_the_words_and_numbers_of_the_page(ffhq):
    document = told(ffhq)
    for section in document["sections"]:
        section["blocks"] = [block for block in section["blocks"] if block["kind"] not in ("chart", "picture")]
    words = " ".join(Page(page(document, ffhq)).words)
    text = markdown(document, ffhq, ffhq / "report")
    links = [section["title"] for section in document["sections"]]
    drawn_twice = shown_numbers(" ".join(links))  # the page lists its sections, Markdown does not
    assert shown_numbers(words) == sorted(shown_numbers(text) + drawn_twice)
    assert len(shown_numbers(text)) > 400


def test_markdown_tables_have_cells_for_all_columns_and_pictures_their_files(ffhq):
    text = markdown(told(ffhq), ffhq, ffhq / "report")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.M)
    assert len(tables) > 10
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table
    pictures = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(pictures) == 6
    assert all((ffhq / "report" / path).resolve().is_file() for path in pictures)


def test_json_holds_the_values_and_is_valid(ffhq):
    document = json.loads(json.dumps(told(ffhq), allow_nan=False))
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
    assert "| Attribute\\_3 | – |" in markdown(told(ffhq), ffhq, ffhq)


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


# --- beside the papers


def published(paper, place, dataset, method):
    tables = [t for t in TABLES if t.paper.startswith(paper) and t.place == place and t.dataset == dataset]
    return [dict(zip([c.name for c in t.columns], t.rows[method], strict=True)) for t in tables if method in t.rows]


def test_published_numbers_are_the_papers():
    """Read off the papers again, not copied from the module."""
    dbae = "Diffusion Bridge"
    celeba = {"AP on CelebA": ".650", "r on LFW": ".635", "MSE on LFW": ".413"}
    assert published(dbae, "Table 1", "celeba", "DBAE-d (deterministic encoder)") == [celeba]
    ffhq = {"AP on CelebA": ".664", "r on LFW": ".675", "MSE on LFW": ".332"}
    assert published(dbae, "Table 1", "ffhq", "DBAE (stochastic encoder)") == [ffhq]
    assert published(dbae, "Table 1", "ffhq", "DiTi")[0]["r on LFW"] == ".622"
    pdae = {"size of code": "49,664", "SSIM": ".994", "LPIPS": ".007", "MSE": "3.84e-5"}
    assert published(dbae, "Table 2", "ffhq", "PDAE, inferred x_T") == [pdae]
    assert published(dbae, "Table 2", "ffhq", "DBAE-d (deterministic encoder)")[0]["MSE"] == "2.49e-3"
    assert published("Diffusion Auto", "Table 2", "ffhq", "48 M images, code of 64")[0]["LPIPS"] == ".162"
    assert published("Several", "", "celeba", "DisDiff") == [{"TAD": ".305", "FID": "18.2"}]
    assert published("Bridge", "", None, "DBMSolver")[0]["DIODE 256"] == "2.06"


def test_published_tables_are_whole():
    for table in TABLES:
        for method, row in table.rows.items():
            assert len(row) == len(table.columns), (table.title, method)
            numbers = [compare.printed(text) for text in row]
            assert all(one is None or math.isfinite(one["value"]) for one in numbers)
        assert table.ours.keys() <= table.rows.keys(), table.title
        assert all(not c.task or c.task[0] in (*base.names(), *TASKS) for c in table.columns)


def comparisons(folder):
    run = collect(folder)
    return {t.title: compare.comparison(t, run, measured(run)) for t in compare.beside(run)}


def protocol(comparison, measure, which=THIS):
    return next(p for p in comparison["protocols"]["items"] if (p["measure"], p["which"]) == (measure, which))


def test_the_published_protocol_is_recognised(ffhq):
    found = comparisons(ffhq)
    probes = protocol(found["Linear probes of models of FFHQ 128 x 128"], "AP on CelebA")
    assert probes["same"] and probes["differences"] == []
    assert probes["value"] == pytest.approx(
        np.nanmean(list(made_run.celeba_probe()["attributes"]["each"]["ap"].values()))
    )
    faces = found["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    assert protocol(faces, "MSE")["same"]
    assert protocol(faces, "MSE")["settings"]["evaluations"] == 100  # of eight rows the one with the paper's settings
    assert protocol(faces, "SSIM")["differences"] == [
        "window of the SSIM: along height and width here, along width and channels in the paper"
    ]
    assert protocol(faces, "SSIM", AS_PUBLISHED)["same"]
    assert protocol(faces, "LPIPS")["differences"] == [
        "steps: 100 here, 333 in the paper",
        "churn: 0 here, 0.33 in the paper",
    ]
    rows = {row[0]: row[1:] for row in faces["table"]["rows"]}
    last = made_run.evaluation()["rows"][3]
    assert rows[THIS] == [512, last["ssim"], last["lpips"], last["mse"]]
    assert rows[AS_PUBLISHED] == [None, last["ssim_official"], None, None]
    marked = [faces["table"]["rows"][i][0] for i in faces["table"]["marked"]]
    assert marked == ["DBAE-d (deterministic encoder)", *WAYS]


def test_an_inferred_endpoint_is_a_row_of_its_own_and_files_are_nobodys(ffhq):
    """What was decoded from more than its code is no result of the code; images from files may be anyone's."""
    faces = comparisons(ffhq)["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    rows = {row[0]: row[1:] for row in faces["table"]["rows"]}
    assert rows[INFERRED] == [49_664, 0.98, 0.01, 1e-4]  # as large as the papers' codes with an inferred x_T
    assert protocol(faces, "MSE", INFERRED)["differences"] == [
        "x_T: inferred here, from the code alone in the paper",
        "sampler: exponential here, euler in the paper",
    ]
    assert min(row["value"] for row in faces["protocols"]["items"]) > 1e-9
    samples = comparisons(ffhq)["Samples of models of FFHQ 128 x 128, T = 100"]
    assert (protocol(samples, "FID")["value"], protocol(samples, "FID")["same"]) == (12.5, True)


def test_each_difference_is_told(tmp_path, ffhq):
    run = made_run.celeba_run(tmp_path / "run", "encoder=stochastic")
    found = comparisons(run)["Linear probes of models of CelebA 64 x 64"]
    assert protocol(found, "r on LFW")["differences"] == [
        "split that picks the epoch: validation here, test in the paper",
        "training images: 256,000 here, 261,000,000 for the paper's own models",
    ]
    official = protocol(found, "r on LFW", AS_PUBLISHED)
    assert official["value"] == pytest.approx(protocol(found, "r on LFW")["value"] + 0.001)
    assert len(official["differences"]) == 1
    assert [column.name for column in found["missing"]] == ["AP on CelebA"]
    assert found["table"]["rows"][found["table"]["marked"][0]][0] == "DBAE (stochastic encoder)"

    other = made_run.probed("celebahq", "attributes", {"ap": np.full(40, 0.5)}, [str(i) for i in range(40)], epochs=3)
    made_run.write(run / "probe" / "metrics.json", other | {"images": {"test": 300}})
    differences = protocol(comparisons(run)["Linear probes of models of CelebA 64 x 64"], "AP on CelebA")["differences"]
    assert differences[:3] == [
        "data set: celebahq here, celeba in the paper",
        "epochs of the linear head: 3 here, 15 in the paper",
        "images: 300 here, 19,962 in the paper",
    ]


def test_a_setting_that_was_not_recorded_is_a_difference(tmp_path):
    run = made_run.begin(tmp_path / "run", made_run.dbae_ffhq.get_config(), 1_020_000)
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    faces = comparisons(run)["Reconstruction of CelebA-HQ by models of FFHQ 128 x 128"]
    assert protocol(faces, "MSE")["differences"] == [
        "data set: not recorded here, celebahq in the paper",
        "images: not recorded here, 30,000 in the paper",
    ]


def test_digits_have_no_published_numbers(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    text = markdown(told(run), run, run)
    assert "There are no published numbers for models of digits at 16 x 16." in text
    assert compare.beside(collect(run)) == []
    assert text.count("DBAE-d") == 3  # the papers' tables are at the end


# --- what there is and what there is not


def test_an_empty_run_names_the_command_of_each_section(tmp_path):
    run = made_run.digits_run(tmp_path / "my run")
    commands = [block["command"] for block in blocks(told(run), "missing")]
    assert {command.rpartition("--task=")[2] for command in commands} == set(TASKS) - {"report"}
    assert all(command.startswith(f"python launch/main.py '--workdir={run}'") for command in commands)
    assert blocks(told(run, tasks=()), "missing")[0]["command"].endswith(
        "--task=probe"
    )  # what this version lacks is not asked


def test_probes_of_several_data_sets_are_beside_the_papers_together(tmp_path):
    run = made_run.celeba_run(tmp_path / "run")
    for name, report in (("celeba", made_run.celeba_probe()), ("lfw", made_run.lfw_probe())):
        made_run.write(run / "probe" / "metrics.json", report)
        made_run.write(run / "probe" / f"metrics_{name}.json", report)
    found = comparisons(run)["Linear probes of models of CelebA 64 x 64"]
    rows = {row[0]: row[1:] for row in found["table"]["rows"]}
    ap, r = made_run.celeba_probe()["attributes_ap"], made_run.lfw_probe()["attributes_r"]
    assert rows[THIS][:2] == pytest.approx([ap, r]) and not found["missing"]
    assert len(blocks(told(run), "bars")) == 3
    assert [tile["note"] for tile in told(run)["tiles"]][:2] == ["probe of celeba", "probe of lfw"]


def test_numbers_from_before_the_newest_checkpoint_are_told_apart(tmp_path):
    run = made_run.celeba_run(tmp_path / "run")
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    assert collect(run).earlier == frozenset()
    now = (run / "probe" / "metrics.json").stat().st_mtime
    (run / "checkpoints" / "2000").mkdir()
    os.utime(run / "checkpoints" / "2000", (now + 100, now + 100))
    os.utime(run / "reconstruct" / "metrics.json", (now + 200, now + 200))
    assert collect(run).earlier == {"probe", "probe/lfw"}
    warnings = [block for block in blocks(told(run), "missing") if "before the newest checkpoint" in block["text"]]
    assert [block["command"].rpartition(" ")[2] for block in warnings] == ["--config.tasks.probe.dataset=lfw"]


def test_every_measure_of_evaluate_is_drawn(ffhq):
    drawn = {block["caption"]: block["lines"] for block in blocks(told(ffhq), "chart")}
    assert {"mse", "psnr", "ssim", "lpips"} <= drawn.keys() and "fid" not in drawn
    assert drawn["mse"].keys() == {"euler", "heun", "exponential, inverted 100"}
    assert drawn["mse"]["heun"][0] == [19, made_run.evaluation()["rows"][4]["mse"]]
    assert any("fid: not measured. No weights" in block["text"] for block in blocks(told(ffhq), "text"))


def test_long_curves_are_thinned_to_means():
    line = [[float(i), float(i % 2)] for i in range(10_000)]
    thin = run_sections.thinned(line)
    assert len(thin) == run_sections.POINTS
    assert np.mean([x for x, _ in thin]) == pytest.approx(4999.5, rel=1e-3)
    assert max(abs(y - 0.5) for _, y in thin) < 0.02
    assert run_sections.thinned(line[:7]) == line[:7]


def test_charts_put_points_where_their_values_are():
    """The ends of a line lie at the ends of the axes; ten times as much is half of the way to a hundred times."""
    chart = {
        **{"caption": "c", "x": "x", "log_x": True, "log_y": False, "dots": True},
        "lines": {"a": [[1, 5], [10, 6], [100, 9]]},
    }
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', charts.line_chart(chart))
    (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in circles]
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.25, abs=0.01)
    assert 0 < x0 < x2 < charts.WIDTH and 0 < y2 < y0 < charts.HEIGHT
    flat = chart | {"lines": {"a": [[3, 0]]}, "log_x": True}
    assert "nan" not in charts.line_chart(flat)


def test_a_log_axis_is_left_where_values_are_not_positive():
    axis = charts.Axis([-1.0, 0.0, 3.0], 0, 100, log=True)
    assert axis(1.0) == pytest.approx(50)
    assert axis.ticks() == [-1, 0, 1, 2, 3]


def test_wall_time_is_that_of_the_lines_after_each_start(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    assert collect(run).seconds is None
    began = made_run.BEGAN
    starts = [
        made_run.START | {"began": t, "from_step": s} for t, s in ((began, 0), (began + 85, 400), (began + 900, 800))
    ]
    made_run.write(run / "run.json", {"starts": starts})
    found = collect(run)
    assert [start["seconds"] for start in found.starts] == [80, 75, None]  # lines come each 10 s, until 160
    assert found.seconds == 155


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "–"), (5.4, "5 s"), (158.2, "2 min 38 s"), (9000, "2 h 30 min"), (509_100, "5 d 21 h")],
)
def test_durations(seconds, shown):
    assert values.duration(seconds) == shown


def test_a_preview_is_reported_with_the_run_that_it_is_of(tmp_path):
    run = made_run.digits_run(tmp_path / "run")
    preview = run / "previews" / "step_00000500"
    made_run.write(preview / "reconstruct" / "metrics.json", {"mse": 0.5} | made_run.DECODED)
    made_run.write(run / "reconstruct" / "metrics.json", {"mse": 0.1} | made_run.DECODED)
    document = told(preview)
    assert document["title"].startswith("run, step_00000500: ") and "at step 500." in document["summary"]
    assert document["tiles"][0]["value"] == "0.5"
    assert any(block["lines"].get("loss") for block in blocks(document, "chart"))


# --- the command and the hook


def test_the_command_writes_the_three_of_them(tmp_path, caplog):
    run = made_run.digits_run(tmp_path / "run")
    main.run([f"--workdir={run}", "--task=report"])
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {"report.html", "report.md", "report.json", "metrics.json"}
    numbers = json.loads((run / "report" / "metrics.json").read_text())
    assert numbers["bytes"] == (run / "report" / "report.html").stat().st_size
    document = json.loads((run / "report" / "report.json").read_text())
    assert (run / "report" / "report.md").read_text() == markdown(document, run, run / "report")
    assert (run / "report" / "report.html").read_text() == page(document, run)
    assert [tile["value"] for tile in document["tiles"]] == ["800", "–"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("probe/metrics.json", '{"classes": ', "probe/metrics.json cannot be read .*--task=probe again"),
        ("probe/metrics.json", "[1]", "probe/metrics.json holds no object"),
        ("run.json", "{}", "run.json cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused_and_the_old_report_stays(name, content, message, tmp_path, capsys):
    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "report" / "report.html", "old")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(SystemExit) as stop:
        main.run([f"--workdir={run}", "--task=report"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert [path.name for path in (run / "report").iterdir()] == ["report.html"]


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    for arguments in ([], ["--config=configs/dbae_digits.py"]):
        with pytest.raises(SystemExit) as stop:
            main.run([f"--workdir={tmp_path}", "--task=report", *arguments])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert "a run's --workdir" in error or "not a run" in error
    assert not list(tmp_path.iterdir())


def test_inside_training_it_comes_last_and_on_the_first_process_alone(tmp_path, monkeypatch):
    """The others' folders of previews hold no run, and a report reads what the other hooks have written."""
    config = tiny_config()
    with config.unlocked():
        for name in ("probe", "reconstruct", "report"):
            config.tasks[name].every_steps = 5
    found = hooks.task_hooks(None, config, tmp_path, None)
    assert [hook.name for hook in found] == ["probe", "reconstruct", "report"] and found[-1].due(10)

    run = made_run.digits_run(tmp_path / "run")
    made_run.write(run / "previews" / "step_00000005" / "reconstruct" / "metrics.json", {"mse": 0.5})
    written = []

    class Board:
        def scalars(self, step, values):
            written.append((step, values))

    class State:
        averaged = None

    hook = hooks.TaskHook("report", base.build("report", {"every_steps": 5}, {}), None, config, run)
    monkeypatch.setattr(hooks, "is_first", lambda: False)
    hook(5, State(), Board())
    assert not written
    monkeypatch.setattr(hooks, "is_first", lambda: True)
    hook(5, State(), Board())
    assert [step for step, _ in written] == [5] and written[0][1]["report/pictures"] == 0
    assert "0.5" in (run / "previews" / "step_00000005" / "report" / "report.html").read_text()


def test_json_is_also_for_programs(ffhq):
    document = json.loads(json.dumps(told(ffhq)))
    mse = [one for one in document["measured"] if one["measure"] == "reconstruction_mse"]
    assert [one["settings"]["evaluations"] for one in mse] == [10, 20, 50, 100, 19, 39, 99, 199, 100, 100]
    assert document["run"]["config"]["method"]["name"] == "dbae" and len(document["run"]["starts"]) == 2
    assert document["run"]["training_images"] == 1_020_000 * 256
