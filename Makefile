# Everything runs in .venv; every target installs what it needs, unless it is already installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-to-run
DEV := $(VENV)/.ready-to-develop
SOURCES := aot tests benchmarks
LOWEST := .venv-lowest
LOWEST_TESTS := $(addprefix tests/,decoding writing export manifest images test_types.py test_paths.py test_bounds.py)
# One thread per process: small models gain nothing from more. Compiled modules are kept, as tests start many processes.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest

.PHONY: setup demo check format test test-fast test-long test-lowest lerobot-newest gpu mutants docs screenshots clean
.PHONY: system system-slurm system-browser system-ffmpeg

# The complete environment: the dependencies of aot and the development tools.
setup: $(DEV)

# Only the dependencies of aot, without development tools.
$(RUN): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("aot needs Python 3.10 or newer, $(PYTHON) is %d.%d; use make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	@$(PYTHON) -c 'import venv, ensurepip' || { echo '$(PYTHON) has no venv module; on Debian: apt-get install python3-venv'; exit 1; }
	@echo 'Installing the dependencies of aot into $(VENV); PyTorch may need several gigabytes.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --editable .
	touch $(RUN)

$(DEV): $(RUN)
	@echo 'Installing the development tools into $(VENV).'
	$(BIN)/pip install --disable-pip-version-check --editable '.[dev]'
	# Without its dependency opencv-python, which would overwrite opencv-python-headless.
	$(BIN)/pip install --disable-pip-version-check --no-deps 'vos-benchmark==0.1.0'
	# Not installed: the package cotracker is extracted from it, as the reference for CoTracker3.
	$(BIN)/pip download --disable-pip-version-check --no-deps --dest $(VENV)/wheels 'autosegmentor==3.0.1'
	# Without its dependencies, which are robots and policies; beside the environment, whose packages come first.
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --target $(VENV)/lerobot --requirement tests/lerobot.txt
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps --target $(VENV)/lerobot-v2.1 'lerobot==0.3.3'
	touch $(DEV)

demo: $(RUN)
	$(BIN)/python -m aot.run dataset=demo segmenter=grabcut tracker=lucas_kanade
	@echo 'Next: run `. $(VENV)/bin/activate`, then `python -m aot` to list the commands.'

check: $(DEV)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# All tests but the long ones: six minutes. Three processes for two cores: one of them mostly waits for SLURM.
test: $(DEV)
	$(PYTEST) -n 3 --dist loadgroup

# The tests that take less than one second each: less than two minutes.
test-fast: $(DEV)
	$(PYTEST) -n 2 --dist loadgroup -m 'not slow'

# Before a release: hours. In one process, because these tests measure memory and time.
test-long: $(DEV)
	$(PYTEST) -m long

# A short selection with the lowest versions that pyproject.toml declares, without PyTorch: two minutes with the
# installation. rerun-sdk has no versions for these of NumPy.
test-lowest: $(LOWEST)/.ready
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest -n 2 -m 'not slow and not long' -k 'not rerun' $(LOWEST_TESTS)

$(LOWEST)/.ready: tests/lowest.txt
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/pip install --disable-pip-version-check --quiet --no-compile --requirement tests/lowest.txt
	touch $@

# A version of LeRobot that needs Python 3.12 and has its own PyTorch (6 GB), for make test-long, which skips its test
# without it: make lerobot-newest NEWEST_PYTHON=python3.12
NEWEST_PYTHON ?= python3.12
lerobot-newest:
	$(NEWEST_PYTHON) -m venv --clear $(VENV)/lerobot-newest
	$(VENV)/lerobot-newest/bin/pip install --disable-pip-version-check 'lerobot[dataset]==0.6.1'

# On a machine with CUDA: its tests, and a table of speed, memory and differences from the CPU, in eight minutes. It
# installs nothing, because such a machine may have PyTorch and no internet: docs/performance.md lists what it needs.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu $(if $(FULL),--full) $(if $(UPSTREAM),--upstream $(UPSTREAM))

# Whether tests notice plausible mistakes in the most important modules: half an hour.
mutants: $(DEV)
	$(BIN)/python -m tests.mutants

# The documentation as a site, in site/.
docs: $(DEV)
	$(BIN)/pip install --disable-pip-version-check --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Install and start what the tests need outside $(VENV): SLURM, Chromium and FFmpeg; needs root on Debian.
system: system-slurm system-browser system-ffmpeg

system-slurm:
	launch/devcluster/up.sh

system-browser:
	tests/browser/setup.sh

system-ffmpeg:
	command -v ffmpeg || { apt-get update -qq && apt-get install -y -qq --no-install-recommends ffmpeg >/dev/null; }

screenshots: $(DEV)
	$(BIN)/python -m tests.browser.screenshots docs/images

clean:
	rm -rf $(VENV) $(LOWEST) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
