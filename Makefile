# Everything from a fresh clone: `make demo` and `make test` need nothing but Python 3.11 or newer.
# Without make (Windows): CONTRIBUTING.md has the same steps as `python -m …` commands.

VENV ?= .venv
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
PY := $(BIN)/python
RUNS := $(VENV)/.runs
STAMP := $(VENV)/.installed

# `make PYTHON=/path/to/python test` chooses the interpreter; otherwise the first of these that runs and is new enough.
PYTHON ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)

.PHONY: help setup demo test check bench

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(STAMP)  ## a virtual environment with everything installed

$(STAMP): $(RUNS)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

# What the demo needs, which is a third of what the tests do: whoever looks for the first time waits for this alone.
$(RUNS): pyproject.toml
	@chosen=; seen=; \
	for each in $(CANDIDATES); do \
	  version=$$($$each -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	  seen="$$seen $$each=$$version"; \
	  $$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue; \
	  chosen=$$each; break; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "manyhands needs Python 3.11 or newer; found:$${seen:- none}." >&2; \
	  echo "Install one from python.org or your package manager, or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$($$chosen --version)"; \
	$$chosen -m venv $(VENV) || { \
	  echo "$$chosen could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PY) -m pip install --quiet --disable-pip-version-check -e .
	@touch $(RUNS)

demo: $(RUNS)  ## a master and two workers as three processes, with live progress
	$(PY) -m manyhands demo

test: $(STAMP)  ## the whole test suite
	$(PY) -m pytest

check: $(STAMP)  ## lint, format, types, and the tests that start no programs
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest -q -m "not programs and not faults"

bench: $(STAMP)  ## the benchmarks, with every peer that installs in the same run
	$(PY) -m benchmarks
