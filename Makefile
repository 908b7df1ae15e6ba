# Everything a person does here: `make help` lists it. Needs Python >= 3.11 with pip, and make.
# On Linux the plain torch wheel brings CUDA along; to take the CPU build, set PIP_EXTRA_INDEX_URL to torch's CPU index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test check bench docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Train one unmodified script over thinwire and over Gloo, and compare
	@$(BIN)/thinwire compare examples/train_text.py

test: $(READY) ## Run the whole test suite
	@$(BIN)/python -m pytest

check: $(READY) ## Run what CI runs before the tests: format, lint, types, layers, house rules, the built wheel
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/house
	$(BIN)/python .ci/check_wheel.py

bench: $(READY) ## Measure all-reduce against Gloo, 1 KiB to 256 MiB
	@$(BIN)/thinwire bench all-reduce --against gloo

docs: $(READY) ## Rewrite the pages and pictures that are generated from the code
	$(BIN)/python -m docs.generate

clean: ## Remove the virtual environment and everything built
	rm -rf $(VENV) build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "thinwire needs Python 3.11 or newer; say which one with: make PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@
