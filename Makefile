# `make demo` tunes a network on real data; `make test` runs the tests. Both set everything up first.
# `make PYTHON=python3.13 VENV=.venv-3.13 …` does the same in an environment of another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA := $(abspath ../shared/data)
ifneq ($(wildcard $(DATA)),)
export HINDGRAD_DATA ?= $(DATA)
endif

.PHONY: demo test test-quick test-slow test-optimised test-library test-lowest fuzz lint docs benchmark lock clean

demo: $(READY)
	$(BIN)/hindgrad tune digits --out demo --overwrite

test: test-quick test-optimised

# What must come out the same to the bit is tested as users compile it; all other tests do without
# the compiler's optimisations.
OPTIMISED := $(sort $(wildcard tests/exact/*.py)) tests/adjoints/test_reversible.py \
	tests/adjoints/test_reversible_start.py tests/adjoints/test_reversible_layers.py \
	tests/adjoints/test_reversible_layout.py tests/adjoints/test_reversible_state.py \
	tests/test_reproducible.py tests/test_anchors.py tests/test_docs.py tests/test_notebooks.py \
	tests/test_microbatches.py tests/optimizers/test_averaged.py tests/optimizers/test_clipping.py
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
test-quick: $(READY)
	$(PYTEST) $(addprefix --ignore=,$(OPTIMISED))
test-optimised: $(READY)
	HINDGRAD_TEST_OPTIMISED=1 $(PYTEST) $(OPTIMISED)

# The library alone, without the commands and the experiments, and without what `test-optimised` runs.
LIBRARY := $(filter-out $(OPTIMISED) tests/test_command.py,$(wildcard $(addsuffix /test_*.py, \
	tests tests/exact tests/optimizers tests/adjoints tests/diagnostics tests/tuning tests/learned \
	tests/segments tests/streams tests/devices tests/attribution)))
test-library: $(READY)
	$(PYTEST) $(LIBRARY)

# The same with the oldest versions that pyproject.toml allows.
test-lowest: $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-lowest
	$(BIN)/uv pip install --quiet --python .venv-lowest --resolution lowest-direct -e ".[cli]" --group dev
	.venv-lowest/bin/python -m pytest -n 2 --dist loadfile $(LIBRARY)

CASES ?= 20000
fuzz: $(READY)
	HINDGRAD_FUZZ_CASES=$(CASES) $(BIN)/python -m pytest -n 2 tests/fuzz

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/mkdocs build --strict

benchmark: $(READY)
	$(BIN)/python -m benchmarks

lock: $(READY)
	$(BIN)/uv pip compile pyproject.toml --extra cli --group dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.lock

# The environment is rebuilt when what it is made from changes.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hindgrad needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) .venv-* demo site dist .pytest_cache .ruff_cache
