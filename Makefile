# Everything runs from a bare clone: the first target that needs it makes .venv. `make help` lists the targets.

PYTHON ?= python3
DEMO ?= 1
ARGS ?=
export DEMO
unexport PYTHONDONTWRITEBYTECODE  # tests start hundreds of processes: without caches each compiles us again

.DEFAULT_GOAL := help
.PHONY: help run test check bench chaos fix clean

BIN := .venv/bin
INSTALLED := .venv/installed
OPENAI_2 := tests/infrastructure/openai-2.txt
PIP := $(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --retries 2

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' Makefile

run: $(INSTALLED) ## The whole platform on this machine, simulated providers, a demo job at each (DEMO=0: none)
	@$(BIN)/python -m tests.demo

test: $(INSTALLED) ## All tests, on SQLite and a real PostgreSQL, with a real Valkey (ARGS='-k lease')
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup $(ARGS)

check: $(INSTALLED) ## Format, lint, types, import rules, revisions, and whether generated documents are up to date
	@$(BIN)/python -m ruff format --check --quiet . || { echo 'not formatted: run `make fix`' >&2; exit 1; }
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m migrations lint
	@$(BIN)/python -m web.openapi --check
	@$(BIN)/python -m web.provider_docs --check

bench: $(INSTALLED) ## The benchmarks: a table, and bench.json
	@$(BIN)/python -m tests.benchmarks $(ARGS)

chaos: $(INSTALLED) ## Kill, pause and flush everything under load, then prove that nothing was lost or doubled
	@$(BIN)/python -m tests.chaos $(ARGS)
	@$(BIN)/python -m pytest -m chaos

fix: $(INSTALLED) ## Format, repair what ruff can repair, renew generated documents
	@$(BIN)/python -m ruff check --quiet --fix-only .
	@$(BIN)/python -m ruff format --quiet .
	@$(BIN)/python -m web.openapi --write
	@$(BIN)/python -m web.provider_docs --write

clean: ## Remove .venv and all caches; data/ stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find common web workers migrations tests -name __pycache__ -prune -exec rm -rf {} +

# The environment, made again when its Python is gone, completed when the requirements have changed.
$(INSTALLED): requirements.txt requirements-dev.txt $(OPENAI_2)
	@command -v $(PYTHON) >/dev/null || { \
	  echo '$(PYTHON) is missing: Python 3.11 or newer is needed (another one: make PYTHON=python3.13 …)' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) -V) is too old: Python 3.11 or newer is needed (another one: make PYTHON=python3.13 …)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$$($(PYTHON) -V) has no venv: install it (Debian and Ubuntu call it python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo 'installing what requirements-dev.txt names …' >&2
	@{ $(PIP) -r requirements-dev.txt && $(PIP) --no-deps --upgrade --target .venv/openai-2 -r $(OPENAI_2); } \
	  >.venv/pip.log 2>&1 || { \
	  echo "could not install the dependencies: $$(grep -m 1 '^ERROR' .venv/pip.log || tail -n 1 .venv/pip.log) (all of it: .venv/pip.log)" >&2; \
	  exit 1; }
	@touch $@
