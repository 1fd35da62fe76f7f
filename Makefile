# make setup   a virtual environment in .venv with Segcam and its tools
# make test    style, types and tests: what CI runs
# make demo    the first picture
# A certain Python: make setup PYTHON=python3.12

.DEFAULT_GOAL := help
.PHONY: help setup lint test demo clean

# The first interpreter that is new enough; running it also passes over version managers' empty shims.
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 10))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	if $$p $(NEW_ENOUGH) 2>/dev/null; then echo $$p; break; fi; done)

BIN := .venv/bin
STAMP := .venv/.segcam-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "Segcam needs Python 3.10 or newer; python3 here is: $$(python3 --version 2>&1 || true)." >&2; \
		echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; fi
	@if ! $(PYTHON) $(NEW_ENOUGH); then \
		echo "Segcam needs Python 3.10 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1)." >&2; exit 1; fi
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
		exit 1; fi
	@echo "Installing Segcam into .venv with $$($(PYTHON) --version) (several hundred megabytes) ..."
	@$(PYTHON) -m venv .venv
	@$(PIP) install -e '.[dev]'
	@touch $(STAMP)
	@echo "Ready. Try: $(BIN)/segcam doctor"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -q

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/demo.sh

clean:
	rm -rf .venv build dist app/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find app tests scripts benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
