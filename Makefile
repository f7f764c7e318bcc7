# Every target works on a machine with Python 3.11 or later, pip, venv and make: it fills .venv by itself.
# ARGS goes to the program behind the target:  make run ARGS="--once --path src"   make test ARGS="-k fence"

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
VENV := @$(PYTHON) scripts/bootstrap.py
SOURCES := omnimind actors serve benchmarks scripts tests

.DEFAULT_GOAL := help
.PHONY: help run test test-fast chaos lint format bench bench-recovery lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: ## start OmniMind here and let it analyse every Python file of this machine's Python (Ctrl-C ends it)
	$(VENV) runtime
	@$(BIN)/omnimind demo $(ARGS)

test: ## run every test
	$(VENV) dev
	@$(BIN)/python -m pytest $(ARGS)

test-fast: ## run the tests that need no other process: unit, properties, 300 simulated clusters (about a minute)
	$(VENV) dev
	@OMNIMIND_TEST_SEEDS=300 $(BIN)/python -m pytest $(wildcard tests/unit tests/properties tests/simulation) $(ARGS)

chaos: ## ten minutes of random faults on several hosts, from namespaces (needs root); prints the command that repeats it
	$(VENV) dev
	@OMNIMIND_CHAOS_SECONDS=$${OMNIMIND_CHAOS_SECONDS:-600} OMNIMIND_CHAOS_HISTORY=$${OMNIMIND_CHAOS_HISTORY:-out} \
		$(BIN)/python -m pytest tests/hosts/test_random_faults.py -s $(ARGS)

lint: ## check style, types and the direction of imports
	$(VENV) dev
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: ## format the code and mend what ruff can mend
	$(VENV) dev
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

bench: ## measure OmniMind beside its peers and write benchmarks/results/
	$(VENV) bench
	@$(BIN)/python -m benchmarks $(ARGS)

bench-recovery: ## kill every part on real hosts (root) and measure how long work waits; beside plain Ray, 40 minutes
	$(VENV) bench
	@$(BIN)/python -m benchmarks.recovery $(ARGS)

lock: ## resolve requirements/*.txt again after a change of pyproject.toml (ARGS=--upgrade: to the newest)
	$(VENV) dev
	@$(BIN)/python scripts/lock.py $(ARGS)

clean: ## remove .venv, caches and output (the ledger of OMNIMIND_HOME stays)
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
