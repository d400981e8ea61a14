"""The report in a browser, at the widths of a phone and of a desk; skipped where there is no Chromium or Chrome."""

import base64
import io
import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from launch import main
from tests import made_run
from tests.browser import BROWSER

WIDTHS = {"phone": 390, "desk": 1280}

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")

# What a reader gets, as the browser itself sees it once everything has been drawn
LOOK = """<script>addEventListener("load", () => {
  document.querySelectorAll("details").forEach(d => { d.open = true; });
  const box = e => e.getBoundingClientRect();
  const texts = [...document.querySelectorAll("svg.chart text")];
  const seen = {
    width: innerWidth,
    overflow: document.documentElement.scrollWidth - innerWidth,
    images: [...document.images].map(i => [i.complete, i.naturalWidth, box(i).width, box(i).height, i.naturalHeight]),
    tables: [...document.querySelectorAll("table")].map(t => [t.rows.length, box(t).height]),
    charts: [...document.querySelectorAll("svg.chart")].map(c => [box(c).width, c.querySelectorAll("polyline").length]),
    letters: Math.min(...texts.map(t => box(t).height)),
    bars: [...document.querySelectorAll(".bars i i")].map(b => box(b).width / box(b.parentElement).width),
    loaded: performance.getEntriesByType("resource").map(r => r.name.slice(0, 5)),
    background: getComputedStyle(document.body).backgroundColor,
  };
  parent.postMessage(btoa(JSON.stringify(seen)), "*");
});</script>"""
# A window is at least 500 pixels wide, a frame in it is as wide as asked
FRAME = """<script>addEventListener("message", e => {
  document.body.insertAdjacentHTML("beforeend", "<pre id=seen>" + e.data + "</pre>");
});</script><iframe src="looked%20at.html" width="WIDTH" height="900" style="border: 0"></iframe>"""


def browse(page, folder, *arguments):
    """Run the browser on a file; what it prints."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *arguments]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    run = made_run.ffhq_run(tmp_path_factory.mktemp("browser") / "ffhq")
    main.run([f"--workdir={run}", "--task=report"])
    return run / "report" / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("device", WIDTHS)
def test_a_browser_shows_tables_and_pictures(device, page, tmp_path):
    looked_at = tmp_path / "looked at.html"
    looked_at.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(WIDTHS[device])))
    dom = browse(frame, tmp_path, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom")
    seen = json.loads(base64.b64decode(re.search(r'<pre id="seen">(.*?)</pre>', dom)[1]))

    assert seen["width"] == WIDTHS[device]
    assert seen["overflow"] <= 0  # the page itself does not scroll sideways
    assert len(seen["images"]) == 6
    for complete, natural_width, width, height, natural_height in seen["images"]:
        assert complete and natural_width > 0 and width > 50
        assert width / height == pytest.approx(natural_width / natural_height, rel=0.05)
    assert len(seen["tables"]) > 10 and all(rows > 1 and height > 30 for rows, height in seen["tables"])
    assert len(seen["charts"]) == 5 and all(width > 250 and lines > 0 for width, lines in seen["charts"])
    assert seen["letters"] > 9  # pixels: chart labels can be read
    values = [value for value in made_run.celeba_probe()["attributes"]["each"]["ap"].values()]
    np.testing.assert_allclose(seen["bars"], np.nan_to_num(values), atol=0.01)
    assert set(seen["loaded"]) <= {"data:"}


@pytest.mark.slow
@pytest.mark.parametrize("device", WIDTHS)
def test_a_screenshot_is_taken(device, page, tmp_path):
    """Look at it: `<pytest's folder>/*/report_<device>.png`."""
    picture = tmp_path / f"report_{device}.png"
    browse(page, tmp_path, f"--window-size={WIDTHS[device]},3000", f"--screenshot={picture}")
    pixels = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("RGB"))
    assert pixels.shape[:2] == (3000, WIDTHS[device])
    colours = pixels @ np.array([65536, 256, 1])
    assert all(len(np.unique(band)) > 20 for band in np.split(colours, 6))  # no empty part
