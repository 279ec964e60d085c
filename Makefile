# Two commands matter: `make demo` and `make test`. Both make the environment when it is missing.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Slow tests start servers and wait for them: two at once take little more than half the time on two cores
PROCESSES ?= 2

.PHONY: help install demo test coverage fast lint types format clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev,postgres,lora]'
	@touch $@

install: $(INSTALLED)  ## make the virtual environment and install into it

demo: $(INSTALLED)  ## hold two tournaments on a small generated world; ends with a champion
	$(BIN)/tournament demo

# What takes longest begins first; tests that share a long setup stay together
TEST = -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

test: $(INSTALLED)  ## run the whole test suite in PROCESSES processes, what takes longest first
	$(BIN)/python $(TEST)

coverage: $(INSTALLED)  ## run it with branch coverage, which fails below the floor in pyproject.toml
	$(BIN)/coverage erase
	$(BIN)/coverage run $(TEST)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

fast: $(INSTALLED)  ## run the fast tests only
	$(BIN)/python -m pytest -m 'not slow'

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## check types
	$(BIN)/mypy

format: $(INSTALLED)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches, never a home folder
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
