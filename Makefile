# Everything a newcomer types. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8

ROWS ?= 50000

.PHONY: help setup demo test bench check chaos up down env invoke
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Create the virtual environment from uv.lock

# The newest Python that Lambda runs and every wheel supports comes first; a version manager's shim that
# does not run is passed over.
$(BIN)/python:
	@python=; for candidate in python3.13 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) python3.12 python3.11 python3; do \
	  if "$$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	[ -n "$$python" ] || { echo "Sluice needs Python 3.11 or newer with venv (Debian: apt install python3-venv)." >&2; exit 1; }; \
	echo "Setting up $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)

$(VENV)/.ready: uv.lock pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --quiet --frozen --inexact --python $(BIN)/python
	@touch $@

demo: $(VENV)/.ready ## Run the conflict report over ROWS generated visits; resumes a run that was interrupted
	@$(BIN)/python -m infra.local demo --rows $(ROWS)

test: $(VENV)/.ready check ## Pass all tests
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile

bench: $(VENV)/.ready ## Measure the chunked update against one statement; takes a quarter of an hour alone on the machine
	@$(BIN)/python -m tests.bench.conflict_report

check: $(VENV)/.ready ## Lint and type-check
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

KILLS ?= 200
SEED ?= 1
chaos: $(VENV)/.ready ## Kill, freeze and disturb runs until KILLS workers died at work, then compare every row
	@$(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED) --rows $(if $(filter file,$(origin ROWS)),20000,$(ROWS))

# The local stack: PostgreSQL, Lambda, Step Functions and the rest of template.yaml on this machine.
up: $(VENV)/.ready ## Start the local stack; prints its endpoint, DSN and ARNs
	@$(BIN)/python -m infra.local up

down: ## End the local stack
	@$(BIN)/python -m infra.local down

env: ## Print the variables for a shell: source <(make env)
	@$(BIN)/python -m infra.local env

# Both reach the recipe through the environment, so that the JSON needs no second quoting.
EVENT ?= {}
export FN EVENT
invoke: ## Invoke one function: FN=get_chunks EVENT='{"job": …}' or EVENT=file.json
	@$(BIN)/python -m infra.local invoke "$$FN" "$$EVENT"
