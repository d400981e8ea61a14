# `make demo`, `make test` and `make docs` set themselves up: a virtual environment in .venv, made anew when the requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
READY := $(VENV)/.ready

.PHONY: demo test test-wheel test-oldest notebooks app owner docs soak soak-short clean

demo: $(READY)
	$(BIN)/python launch/demo.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The wheel in an empty environment: trains digits, pushes to a small server, opens hf://.
test-wheel: $(READY)
	$(BIN)/python -m tests.installed --python=$(PYTHON)

# The tests with the oldest releases of JAX and its neighbours that are supported, those of Colab in 2025.
test-oldest:
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[test]'
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile

# About an hour: trainings that are killed, damaged and preempted against uninterrupted ones (docs/reliability.md).
soak: $(READY)
	$(BIN)/python -m tests.soak

# A few of each, in some minutes.
soak-short: $(READY)
	$(BIN)/python -m tests.soak --short

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), 3.11 or newer is needed; run make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) lacks venv; on Debian and Ubuntu: sudo apt install python3-venv"; exit 2; }
	@echo "Installing into $(VENV) (a minute or two) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $(READY)

# Every notebook from top to bottom, with sizes as small as they go.
notebooks: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[notebooks]'
	DIFFREP_SMALL=1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

# The tests of the web page, with gradio, whose Pillow may be an older one.
app: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	$(BIN)/python -m pytest tests/test_app.py tests/test_app_browser.py

# Where the repository is published: the notebooks' badges and first cells name OWNER until `make owner OWNER=name`.
owner:
	sed -i.bak 's#/OWNER/diffrep_jax#/$(OWNER)/diffrep_jax#g' notebooks/*.ipynb && rm notebooks/*.bak

docs: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir site

clean:
	rm -rf $(VENV) $(OLDEST)
