"""The manual names what there is: every task, every config; the README's links lead somewhere."""

import re
from pathlib import Path

from diffrep_jax.tasks import base

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}


def test_every_link_between_files_leads_to_one():
    pages = {ROOT / "README.md": (ROOT / "README.md").read_text()}
    pages |= {ROOT / "docs" / name: text for name, text in PAGES.items()}
    links = [(page, link) for page, text in pages.items() for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)]
    assert len(links) > 20
    lost = [f"{page.name}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert not [name for name in PAGES if f": {name}" not in navigation]


def test_every_task_is_described():
    manual = "\n".join(PAGES[name] for name in ("train.md", "data.md", "tasks.md", "checkpoints.md"))
    assert not [name for name in base.names() if f"`{name}`" not in manual and f"--task={name}" not in manual]


def test_every_config_is_named_in_the_table():
    """By its file, or as the beginnings and the ends that one row of the table puts together."""
    rows = [
        re.findall(r"`([a-z0-9_]+(?:\.py)?)`", line.split("|")[1])
        for line in PAGES["train.md"].splitlines()
        if "|" in line
    ]
    named = {a if a.endswith(".py") else a + b for row in rows for a in row for b in ("", *row)}
    configs = {path.name for path in (ROOT / "configs").glob("*.py") if not path.name.startswith("_")}
    assert not configs - named
