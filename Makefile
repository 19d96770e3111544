# What a person types. Everything is installed into .venv; servers the tests need are fetched and started by the tests.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
FILES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test soak lint format bench walk clean

help: ## what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: .venv/.demo ## PostgreSQL (and MySQL, if installed) to S3 and back to a proof, in about a minute; leaves nothing behind
	@$(BIN)/headrace demo

test: .venv/.test ## all tests, on real servers: two at a time, each half on servers of its own (about 3 GB of memory)
	@$(BIN)/python -m pytest --numprocesses $(or $(TEST_PROCESSES),2) --dist load --maxschedchunk 1

soak: .venv/.test ## the same tests with HEADRACE_SOAK=1, which the long suites go by
	@HEADRACE_SOAK=1 $(BIN)/python -m pytest --timeout 7200

lint: .venv/.lint ## style, types, and which package may import which
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: .venv/.lint ## put the code into shape
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

bench: .venv/.test ## headrace beside its peers, in one run
	@$(BIN)/python -m benchmarks.postgres
	@$(BIN)/python -m benchmarks.mysql
	@$(BIN)/python -m benchmarks.mongodb --rows 300000 --results benchmarks/results
	@$(BIN)/python -m benchmarks.binlog
	@$(BIN)/python -m benchmarks.rest
	@$(BIN)/python -m benchmarks.kafka

walk: .venv/.test ## the README typed from a fresh clone of what is committed: server, worker, every deployment, loads
	@$(BIN)/python -m tests.walkthrough

clean: ## remove what the targets above made in this folder
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "headrace needs Python 3.11 or newer. On Debian: sudo apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "Python's venv is missing. On Debian: sudo apt-get install python3-venv"; rm -rf .venv; exit 1; }
	@$(BIN)/python -m pip install --quiet --upgrade pip

# One file for each set of extras, so that nothing is installed twice.
.venv/.%: .venv/bin/python $(FILES)
	@echo "installing headrace[$*] into .venv …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@
