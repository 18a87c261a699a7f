# Every target sets itself up: only Python >= 3.11, pip and make are needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Parsl starts its processes by name.
export PATH := $(abspath $(BIN)):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help example example-dask example-globus-compute test soak parsl-suite dask-suite check format bench docs clean

help:  ## Say what each target does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# One stamp per extra, so that a target installs what it needs and no more.
$(VENV)/.installed-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): proxystore-core[$*]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
	@touch $@

example: $(VENV)/.installed-example  ## Run the Parsl imaging workflow, plain and with ours
	$(BIN)/python -m examples.imaging

example-dask: $(VENV)/.installed-example-dask  ## Run the Dask workflow on pictures of faces, plain and with ours
	$(BIN)/python -m examples.faces

example-globus-compute: $(VENV)/.installed-example-globus-compute  ## Run map and reduce through Globus Compute's real parts, plain and with ours
	$(BIN)/python -m examples.hubble

test: $(VENV)/.installed-test  ## Run all tests but the long ones
	$(BIN)/python -m pytest

soak: $(VENV)/.installed-test  ## Run the long survival tests
	$(BIN)/python -m pytest -m soak --timeout 3600

parsl-suite: $(VENV)/.installed-test  ## Run Parsl's own tests with everything by reference, next to plain
	$(BIN)/python tests/integrations/parsl_suite.py

dask-suite: $(VENV)/.installed-test  ## Run tests of Dask and joblib with everything by reference, next to plain
	$(BIN)/python tests/integrations/dask_suite.py

check: $(VENV)/.installed-check  ## Lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-check  ## Sort imports and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench  ## Measure us and the peers side by side
	$(BIN)/python -m benchmarks.run

docs: $(VENV)/.installed-docs  ## Build the guides and the API reference into site/
	$(BIN)/python docs/build.py

clean:  ## Remove what the other targets made
	rm -rf $(VENV) site build dist benchmarks/results examples/output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
