# Two commands do everything, set-up included: `make run` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-all check browser lock clean help

run: $(READY)  ## the main job: suites/quickstart.yaml, end to end
	$(BIN)/gauntlet run suites/quickstart.yaml

test: $(READY)  ## the checks and the tests, minutes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/side_by_side.py -m "not slow"

test-all: $(READY)  ## everything, the slow tests too
	$(BIN)/python -m pytest

check: $(READY)  ## the checks alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

browser:  ## the browser that tests/browser drives (Debian's chromium); without it those tests are skipped
	.ci/browser

lock:  ## resolve the dependencies anew, in an environment of its own
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/python -m pip install --quiet torch==2.13.0
	.lock-venv/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.lock-venv/bin/python -m pip install --quiet . --group dev
	.lock-venv/bin/python -m pip uninstall --quiet --yes gauntlet-bench
	.lock-venv/bin/python -m pip freeze --all --exclude pip | sed 's/+cpu$$//' > requirements.lock
	rm -rf .lock-venv

clean:  ## remove what running and testing left
	rm -rf gauntlet-out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ -/'
