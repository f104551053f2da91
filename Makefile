# Everything a developer or a curious stranger does here. `make help` lists it.

PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
INSTALLED := .venv/installed
DEVELOPED := .venv/developed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint .ci/constraints.txt

# Half the size where there is no NVIDIA GPU.
TENSORFLOW ?= $(if $(shell command -v nvidia-smi),tensorflow,./tensorflow-cpu)

.DEFAULT_GOAL := help
.PHONY: help install develop demo test chaos check bench dist format lock clean

help:  ## list these jobs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv for using featx, with the pinned versions

develop: $(DEVELOPED)  ## add to .venv what the tests and checks need; the other jobs install what they need by themselves

.venv/tensorflow: .ci/constraints.txt tensorflow-cpu/backend.py
	@test -n "$(PYTHON)" || { echo "featx needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) $(TENSORFLOW)
	@touch $@

$(INSTALLED): .venv/tensorflow pyproject.toml
	$(PIP_INSTALL) --editable .
	@# Compile what featx imports, a third of all. The rest, mostly tests, would take 0.1 GB.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import featx.cli, matplotlib.pyplot, sklearn.linear_model; \
	from featx.cli.streams import silent_stderr; from featx.system import hide_with, import_keras, import_openvino; \
	hide_with(silent_stderr); import_keras(); import_openvino()'
	@touch $@

$(DEVELOPED): .venv/tensorflow pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib/python*/site-packages || true  # a few test files are not Python
	@touch $(INSTALLED) $@

demo: $(INSTALLED)  ## compare transfer learning with a CNN from scratch: photographs from Kaggle, or digits without a network
	$(BIN)/featx compare --demo

test: $(DEVELOPED)  ## run the tests, four files at a time, since many tests wait; a quarter of an hour on two cores
	@$(BIN)/python -m compileall -q featx tests  # or each process compiles it, where Python may not write bytecode
	@$(BIN)/python -m tests.compile_tests
	$(BIN)/python -m pytest --quiet --numprocesses 4 --dist loadfile --no-loadscope-reorder

chaos: $(DEVELOPED)  ## kill, fill up and damage featx, and give it 10,000 hostile files, on a cluster too; over half an hour
	FEATX_CHAOS=full $(BIN)/python -m pytest --quiet --numprocesses 3 --dist loadfile tests/chaos tests/backbones/test_table.py tests/engines/test_openvino_engine.py tests/export tests/extract/test_cluster.py tests/extract/test_planning.py tests/extract/test_rows_match.py tests/images/test_odd_images.py tests/store/test_fuzz.py

check: $(DEVELOPED)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEVELOPED)  ## measure featx against what one would write with Keras alone; ten minutes
	@mkdir -p reports
	$(BIN)/python benchmarks/bench.py $(DATA) $(if $(WEIGHTS_DIR),--weights-dir $(WEIGHTS_DIR)) --json reports/bench.json

format: $(DEVELOPED)  ## format the code, and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist:  ## build the sdist, and the wheel from it, into dist/
	rm -rf dist
	builder=$$(mktemp -d) && $(PYTHON) -m venv $$builder && $$builder/bin/python -m pip install --quiet --disable-pip-version-check build \
	&& $$builder/bin/python -m build --outdir dist . && rm -rf $$builder

# For Python 3.14, TensorFlow has no release yet, so it is not pinned there, nor is h5py, whose version it limits.
lock:  ## pin today's newest versions that fit pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/^tensorflow==(.*)/&\ntensorflow-cpu==\1/' \
	| sed -E '/^(tensorflow|tensorflow-cpu|h5py)==/s/$$/ ; python_version < "3.14"/' > .ci/constraints.txt
	@touch .venv/tensorflow $(INSTALLED) $(DEVELOPED)

clean:  ## remove .venv and what the tools leave behind; cache/, runs/ and reports/ stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
