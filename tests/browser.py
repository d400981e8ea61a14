"""The browser of tests that look at pages: Chromium or Chrome, the system's or Playwright's, or None."""

import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DOWNLOADED = sorted(map(str, Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome")))
BROWSER = next(filter(None, map(shutil.which, (*NAMES, *DOWNLOADED))), None)
