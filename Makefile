# Two commands matter: `make demo` and `make test`. Both make the environment when it is missing.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Slow tests start servers and wait for them: two at once take little more than half the time on two cores
PROCESSES ?= 2

.PHONY: help install demo test slow coverage fast lint types format lock clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(INSTALLED): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable '.[dev,postgres,lora]'
	@touch $@

install: $(INSTALLED)  ## make the virtual environment and install into it

demo: $(INSTALLED)  ## hold two tournaments on a small generated world; ends with a champion
	$(BIN)/tournament demo

# What takes longest begins first; tests that share a long setup stay together
TEST = -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder

test: $(INSTALLED)  ## run the whole test suite in PROCESSES processes, what takes longest first
	$(BIN)/python $(TEST)

slow: $(INSTALLED)  ## run the tests that train or start servers
	$(BIN)/python $(TEST) -m slow

coverage: $(INSTALLED)  ## run the fast tests with branch coverage, which fails below the floor in pyproject.toml
	$(BIN)/coverage erase
	$(BIN)/coverage run $(TEST) -m 'not slow'
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

lock:  ## put the newest versions that pyproject.toml allows into requirements.lock; then run `make test`
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet 'uv>=0.9'
	build/lock/bin/uv pip compile --quiet --upgrade --python-version 3.11 --all-extras --no-annotate --no-header \
		--output-file build/lock/resolved.txt pyproject.toml
	grep '^#' requirements.lock > build/lock/requirements.lock
	cat build/lock/resolved.txt >> build/lock/requirements.lock
	mv build/lock/requirements.lock requirements.lock

clean:  ## remove the environment and caches, never a home folder
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
