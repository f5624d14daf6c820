# Two commands do the work: `make build-cxrmax` and `make test`. Both install what they need first.

PYTHON ?= python3
VENV ?= .venv
RECIPE ?= demo
OUT ?= build/cxr-max
PRESET ?= quick
LAB ?= build/lab
WORKERS ?= 2
ARGS ?=

PYTEST = $(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
BUILD = $(VENV)/bin/cxr-max build --recipe "$(RECIPE)" $(if $(SOURCE),--source "$(SOURCE)") \
	$(if $(TEACHERS),--teachers "$(TEACHERS)") $(if $(STUDIES),--studies "$(STUDIES)") --out "$(OUT)" $(ARGS)

.PHONY: help setup build-cxrmax lab test test-all lint bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
	@echo "Variables: SOURCE= TEACHERS= STUDIES= OUT= RECIPE= PRESET= LAB= ARGS= WORKERS= PYTHON= VENV="

setup: $(VENV)/.dev ## Install the package and the tools for working on it

build-cxrmax: $(VENV)/.base ## Build a release: phantoms and simulated teachers unless SOURCE= and TEACHERS= say otherwise
	@$(BUILD)

lab: $(VENV)/.dev ## The whole paper on phantoms with known truth; LAB= says where its page goes
	$(VENV)/bin/cxr-max lab --preset "$(PRESET)" --out "$(LAB)" $(ARGS)

test: $(VENV)/.dev ## Run the tests, WORKERS= at a time (ARGS= goes to pytest)
	$(PYTEST) $(ARGS)

test-all: $(VENV)/.dev ## Run the slow tests too
	$(PYTEST) -m "slow or not slow" $(ARGS)

lint: $(VENV)/.dev ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.dev ## Measure side by side, and write benchmarks/RESULTS.md
	$(VENV)/bin/python -m benchmarks

clean: ## Remove the installation and the demo's build
	rm -rf "$(VENV)" build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "cxr-max needs Python 3.11 to 3.13: say PYTHON=python3.12, for instance." >&2; exit 2; }
	$(PYTHON) -m venv "$(VENV)"

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) install --quiet --constraint constraints.txt --editable ".[train,eval,dev]"
	@touch $@
