# Everything a developer or a curious stranger does here. `make help` lists it.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install demo test chaos check bench format lock clean

help:  ## list these jobs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv with the pinned versions; the other jobs do this by themselves

$(INSTALLED): pyproject.toml .ci/constraints.txt
	@test -n "$(PYTHON)" || { echo "featx needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)  ## compare transfer learning with a CNN from scratch on handwritten digits; minutes
	$(BIN)/featx fetch sample --to cache/sample-digits
	$(BIN)/featx compare cache/sample-digits --backbone vgg16 --image-size 64 --weights imagenet-or-random --with-scratch-cnn

test: $(INSTALLED)  ## run the tests, three files at a time, since many tests wait; ten minutes on two cores
	@$(BIN)/python -m compileall -q featx  # hundreds of processes would compile it, where Python may not write bytecode
	$(BIN)/python -m pytest --quiet --numprocesses 3 --dist loadfile --no-loadscope-reorder

chaos: $(INSTALLED)  ## kill, fill up and damage featx hundreds of times, on a cluster too; ten minutes
	FEATX_CHAOS=full $(BIN)/python -m pytest --quiet tests/chaos tests/extract/test_cluster.py tests/extract/test_rows_match.py tests/store/test_fuzz.py

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)  ## measure featx against what one would write with Keras alone; ten minutes
	@mkdir -p reports
	$(BIN)/python benchmarks/bench.py $(DATA) $(if $(WEIGHTS_DIR),--weights-dir $(WEIGHTS_DIR)) --json reports/bench.json

format: $(INSTALLED)  ## format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:  ## pin today's newest versions that fit pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable > .ci/constraints.txt
	@touch $(INSTALLED)

clean:  ## remove .venv and what the tools leave behind; cache/, runs/ and reports/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
