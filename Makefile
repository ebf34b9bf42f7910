# `make demo` tunes a network on real data; `make test` runs the tests. Both set everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DATA := $(abspath ../shared/data)
ifneq ($(wildcard $(DATA)),)
export HINDGRAD_DATA ?= $(DATA)
endif

.PHONY: demo test test-slow lint docs benchmark lock clean

demo: $(READY)
	$(BIN)/hindgrad tune digits --out demo --overwrite

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

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
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header -o requirements.lock

# The environment is rebuilt when what it is made from changes.
$(READY): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hindgrad needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) demo site dist .pytest_cache .ruff_cache
