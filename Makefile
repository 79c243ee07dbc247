# Every target first sets up .venv here: uv inside a virtual environment, or pip where uv cannot do it.
# PYTHON=/path/to/python picks the interpreter; without it the first Python 3.11 to 3.13 that runs is taken.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test quick coverage lowest lint format docs bench clean

BIN := .venv/bin
PINS := .venv/pins.txt
INSTALL = $(BIN)/python -m uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -b constraints.txt
CORE = $(shell $(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
READY := .venv/.ready
CANDIDATES := python3 python3.12 python3.13 python3.11 /usr/bin/python3 /usr/local/bin/python3
USABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## .venv with Regraft, every extra and the developers' tools
demo: $(READY)  ## The main job, offline, on real pictures: ends with the verdict and the report's path
	$(BIN)/regraft demo

test: $(READY)  ## The tests, two files at a time (PYTEST_ARGS="-k plan -n 0" picks some, one after the other)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

quick: $(READY)  ## The tests without those that take long: under a minute
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow' $(PYTEST_ARGS)

coverage: $(READY)  ## The tests, and which lines none of them reaches
	COVERAGE_CORE=$(CORE) $(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

lowest:  ## The tests with the oldest versions that pyproject.toml allows, in .venv-lowest (PYTHON=python3.11)
	$(or $(PYTHON),python3.11) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install -q uv
	.venv-lowest/bin/python -m uv pip install --python .venv-lowest/bin/python --resolution lowest-direct -e '.[all,dev]'
	.venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile $(PYTEST_ARGS)

lint: $(READY)  ## ruff, its formatter as a check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Let ruff mend and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## The documents and the API reference as pages, in site/
	$(INSTALL) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)  ## What each script of bench/ measures; NAME=... ARGS="..." runs one
ifdef NAME
	$(BIN)/python bench/$(NAME).py $(ARGS)
else
	@for script in bench/*.py; do \
	    if [ -e "$$script" ]; then printf '%-28s %s\n' "$$script" "$$(sed -n '1s/^"""//p' "$$script")"; fi; \
	done
	@echo 'Run one: make bench NAME=first_answer'
endif

clean:  ## Remove .venv, caches and builds; runs/ stays
	rm -rf .venv .venv-lowest dist build site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	    python=; \
	    for candidate in $(if $(PYTHON),$(PYTHON),$(CANDIDATES)); do \
	        if "$$candidate" -c '$(USABLE)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	    done; \
	    if [ -z "$$python" ]; then \
	        echo "Regraft needs Python 3.11, 3.12 or 3.13 with its venv module; tried: $(if $(PYTHON),$(PYTHON),$(CANDIDATES))." >&2; \
	        echo "Install one (Debian: apt-get install python3 python3-venv) or name one: make PYTHON=/path/to/python3.12" >&2; \
	        exit 1; \
	    fi; \
	    echo "Setting up .venv with $$("$$python" --version)"; \
	    rm -rf .venv; \
	    "$$python" -m venv .venv; \
	fi
	@sed -E '/^ +--hash/d; s/ \\$$//' constraints.txt > $(PINS)
	@if ! { $(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q -c $(PINS) uv; } \
	    || ! $(INSTALL) -e '.[all,dev]' 2> >(tee .venv/uv.log >&2); then \
	    if grep -qs 'Hash mismatch' .venv/uv.log; then \
	        echo "A downloaded file is not the one that constraints.txt names; nothing was installed." >&2; exit 1; \
	    fi; \
	    echo "uv could not do it; installing with pip, which takes some minutes" >&2; \
	    $(BIN)/python -m pip install -c $(PINS) -e '.[all,dev]'; \
	fi
	@touch $@
