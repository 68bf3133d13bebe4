# Everything runs in .venv; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := aot tests benchmarks

.PHONY: setup demo check format test test-fast system clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("aot needs Python 3.10 or newer, $(PYTHON) is %d.%d; say make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo 'on Debian: apt-get install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
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

# What the tests of other systems need, installed and started: a SLURM cluster on this machine. As root on Debian.
system:
	launch/devcluster/up.sh

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
