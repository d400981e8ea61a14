"""The notebooks as files: they open on Colab, begin alike, hold no outputs, and use what is public. `make notebooks`
runs them."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PUBLIC = ("diffrep_jax", "diffrep_jax.data", "diffrep_jax.inference.edit", "diffrep_jax.metrics.image")
STAND_IN = ("diffrep_jax.port",)  # to write a checkpoint as the authors do


def sources(notebook, kind):
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_there_are_four():
    assert set(NOTEBOOKS) == {"quickstart", "train_your_own", "official_checkpoints", "few_steps"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_clean_and_opens_on_colab(name):
    cells = NOTEBOOKS[name]["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    assert len({cell["id"] for cell in cells}) == len(cells)
    title = sources(NOTEBOOKS[name], "markdown")[0]
    (address,) = re.findall(r"\]\((https://colab\.research\.google\.com/github/[^)]+)\)", title)
    repository = re.search(r"git clone .*https://github\.com/(\S+)", sources(NOTEBOOKS[name], "code")[0])[1]
    assert address.endswith(f"/github/{repository}/blob/main/notebooks/{name}.ipynb")


def test_they_begin_alike():
    assert len({sources(notebook, "code")[0] for notebook in NOTEBOOKS.values()}) == 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_uses_what_is_public(name):
    code = "\n".join(sources(NOTEBOOKS[name], "code"))
    allowed = {*PUBLIC, *(STAND_IN if name == "official_checkpoints" else ())}
    imported = re.findall(r"^\s*(?:from|import) (diffrep_jax[\w.]*)", code, re.MULTILINE)
    assert imported and set(imported) <= allowed
    assert not re.search(r"\.\_[a-z]", code)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_of_a_notebook_lead_to_files(name):
    links = re.findall(r"\]\(([^):#\s]+)\)", "\n".join(sources(NOTEBOOKS[name], "markdown")))
    assert not [link for link in links if not (ROOT / "notebooks" / link).exists()]
