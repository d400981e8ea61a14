"""The web page in a browser, at the widths of a phone and of a desk; skipped without gradio, Chromium or Chrome."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from launch import app
from tests.browser import BROWSER

pytest.importorskip("gradio")
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome"), pytest.mark.slow]
WIDTHS = {"phone": 500, "desk": 1280}  # a window is at least 500 pixels wide


@pytest.fixture(scope="module")
def address():
    blocks = app.page(app.parse(["--workdir=pretrained/dbae_digits"])).blocks
    _, address, _ = blocks.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, css=app.CSS)
    yield address
    blocks.close()


def browse(address, folder, *arguments):
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    command += [f"--user-data-dir={folder / 'profile'}", "--timeout=15000", "--virtual-time-budget=15000", *arguments]
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("device", WIDTHS)
def test_a_screenshot_shows_both_images(device, address, tmp_path):
    """Look at it: `<pytest's folder>/*/app_<device>.png`."""
    picture = tmp_path / f"app_{device}.png"
    browse(address, tmp_path, f"--window-size={WIDTHS[device]},1400", f"--screenshot={picture}")
    shown = np.asarray(Image.open(io.BytesIO(picture.read_bytes())).convert("L"))
    assert shown.shape == (1400, WIDTHS[device])
    middle = WIDTHS[device] // 2
    assert all((half[:450] < 60).mean() > 0.05 for half in (shown[:, :middle], shown[:, middle:]))  # black grounds


def test_the_page_has_its_tabs(address, tmp_path):
    dom = browse(address, tmp_path, "--window-size=1280,1400", "--dump-dom")
    for text in ("DBAE on digits", "Reconstruct", "Interpolate", "Attributes", "Blocks", "New"):
        assert text in dom
