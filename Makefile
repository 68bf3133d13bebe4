# Everything runs in .venv; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := aot tests benchmarks

.PHONY: setup demo check format test test-fast docs system system-slurm system-browser screenshots clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("aot needs Python 3.10 or newer, $(PYTHON) is %d.%d; say make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo 'on Debian: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	# Without the opencv-python that it asks for, which would overwrite opencv-python-headless.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'vos-benchmark==0.1.0'
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m aot.run dataset=demo segmenter=grabcut tracker=lucas_kanade

check: $(READY)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

test: $(READY)
	$(BIN)/pytest

test-fast: $(READY)
	$(BIN)/pytest -m 'not slow'

# The documentation as a site, in site/.
docs: $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What the tests need of the system beside $(VENV), installed and started; as root on Debian.
system: system-slurm system-browser

system-slurm:
	launch/devcluster/up.sh

system-browser:
	tests/browser/setup.sh

screenshots: $(READY)
	$(BIN)/python -m tests.browser.screenshots docs/images

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
