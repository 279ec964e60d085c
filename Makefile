# Two commands matter: `make demo` and `make test`. Both make the environment when it is missing.
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Versions and hashes of every file: what is not in a lock, or is another file, is not installed
LOCKED := -m pip install --quiet --no-deps --require-hashes --requirement
TOOLS := build/tools
# Fast tests compute: one process a core. Slow tests start servers and wait for them: there is room for one more.
PROCESSES ?= 2
SLOW_PROCESSES ?= 3

.PHONY: help install demo test slow coverage fast lint types format site pictures lock sbom audit images clean

help:  ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# torch for Linux on PyPI comes with CUDA's libraries. Its CPU build is taken where pip is set up to find it.
$(INSTALLED): pyproject.toml requirements.lock requirements-cuda.lock docker/torch.txt
	@echo "installing into $(VENV), once: about four minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python $(LOCKED) docker/torch.txt 2>/dev/null || [ "$$(uname)" != Linux ] \
		|| $(BIN)/python $(LOCKED) requirements-cuda.lock
	$(BIN)/python $(LOCKED) requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

$(TOOLS)/.installed: .ci/tools.lock
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python $(LOCKED) .ci/tools.lock
	@touch $@

install: $(INSTALLED)  ## make the virtual environment and install into it

demo: $(INSTALLED)  ## hold two tournaments on a small generated world; about two minutes; ends with a champion
	$(BIN)/tournament demo

# What takes longest begins first; tests that share a long setup stay together (tests/scheduling.py)
TEST = -m pytest -n $(1) --dist loadgroup --no-loadscope-reorder --durations 40 --durations-min 3

test: $(INSTALLED)  ## run the whole test suite in PROCESSES processes, what takes longest first
	$(BIN)/python $(call TEST,$(PROCESSES))

fast: $(INSTALLED)  ## run the fast tests only
	$(BIN)/python $(call TEST,$(PROCESSES)) -m 'not slow'

slow: $(INSTALLED)  ## run the tests that train or start servers
	$(BIN)/python $(call TEST,$(SLOW_PROCESSES)) -m slow

coverage: $(INSTALLED)  ## run the fast tests with branch coverage, which fails below the floor in pyproject.toml
	$(BIN)/coverage erase
	$(BIN)/coverage run $(call TEST,$(PROCESSES)) -m 'not slow'
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(INSTALLED)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## check types
	$(BIN)/mypy

format: $(INSTALLED)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

site: $(INSTALLED)  ## build the docs as a site that opens from files: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# The tests that drive a browser take theirs where it is when SCREENSHOTS names a folder
pictures: $(INSTALLED)  ## take all pictures of the docs anew, and draw its diagrams; needs Chromium; ten minutes
	mkdir -p build/pictures
	SCREENSHOTS=$(CURDIR)/build/pictures $(BIN)/python -m pytest --quiet -m ui \
		tests/deployments/test_first_hour.py
	$(BIN)/tournament demo --home .tournament/pictures
	$(BIN)/python docs/site/pictures.py .tournament/pictures build/pictures
	$(BIN)/python docs/site/diagrams.py

lock: $(TOOLS)/.installed  ## lock the newest versions that pyproject.toml allows, with hashes; then run `make test`
	$(TOOLS)/bin/python .ci/lock.py

sbom: $(INSTALLED) $(TOOLS)/.installed  ## write what is installed to build/sbom.json (CycloneDX)
	$(TOOLS)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--spec-version 1.6 --output-format JSON --output-file build/sbom.json $(BIN)/python

audit: $(TOOLS)/.installed  ## ask PyPI which locked versions have known vulnerabilities
	$(TOOLS)/bin/python .ci/audit.py

images:  ## pin the base images to the newest digests of their tags; needs Docker and its registry
	docker/pin-images.sh

clean:  ## remove the environment and caches, never a home folder
	rm -rf $(VENV) build .pytest_cache .ruff_cache .mypy_cache
