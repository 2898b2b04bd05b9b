# make demo   the whole pipeline over a drawn catalogue: no network but the package index, no key, no GPU
# make test   all tests
# make up     database, Dagster UI and daemon on this terminal (make up DEMO=1: on the demo's data)
# make check  what CI checks besides: lint, format, types

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test up check install migration

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "Python 3.10 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/embedding-assets demo

up: install
	$(BIN)/embedding-assets $(if $(DEMO),--demo) up

# fast tests first, then those that start processes and kill them
test: install
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# make migration NAME="what changes": writes a migration for what the models have and the schema lacks
migration: install
	$(BIN)/python -m embedding_assets.store.migrations "$(NAME)"

