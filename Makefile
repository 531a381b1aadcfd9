# The main commands are `make demo` and `make test`. Both install what they need, once.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev supported upgrade demo demo-llm test test-all coverage smoke check lint types format reference lock clean
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations=15
PYTHON ?= python3
WHOLE := test -x $(BIN)/python && test -x $(BIN)/pip
INSTALL := $(BIN)/uv pip install -q --python $(BIN)/python
COMPILE = .venv.lock/bin/uv pip compile -q --universal --python-version 3.11.2 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock' $(UPGRADE:%=--upgrade-package %)
# uv by itself ignores the system's certificates, and a network may have one of its own; pip trusts what the system trusts
export UV_SYSTEM_CERTS = 1
export UV_PYTHON_DOWNLOADS = never
export OMP_NUM_THREADS ?= 2
export GOMP_SPINCOUNT ?= 2000

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: .venv/ready  ## Install .venv from requirements.lock; choose a Python: PYTHON=python3.13

setup-dev: .venv/ready-dev  ## Install the tools of tests and checks, from requirements-dev.lock

# A Python that is named must be that of the environment; else the environment's own serves, or python3 for a new one.
supported:
	@if $(WHOLE) && test "$(origin PYTHON)" = file; then exit 0; fi; \
	command -v $(PYTHON) > /dev/null || \
		{ echo "There is no $(PYTHON); name one that is installed: make setup PYTHON=/path/to/python3"; exit 1; }; \
	if $(WHOLE); then $(PYTHON) deployments/install/supported.py $(BIN)/python; \
	else $(PYTHON) deployments/install/supported.py; fi

upgrade: setup  ## Back up, pull, install, restart one by one; the gateway keeps answering
	@$(BIN)/driftline backup
	git pull --ff-only
	@$(MAKE) --no-print-directory setup
	@$(BIN)/driftline restart
	@$(BIN)/driftline deploy

demo: setup  ## Run the whole pipeline on real flights, until it retrains
	@$(BIN)/driftline demo flights

demo-llm: setup  ## Tune a model, and answer from documents: base, prompt, retrieval and tuned model in one table
	@$(BIN)/driftline demo assistant
	@$(BIN)/driftline demo handbook --profile tuned

test: setup-dev  ## Run all tests except the long ones, offline
	@$(PYTEST)

test-all: setup-dev  ## Run all tests, with kill -9 of every process in every stage
	@DRIFTLINE_EXAMPLES=10000 $(PYTEST) -m ""

coverage: setup-dev  ## Run the tests, and show which lines they leave out
	@$(PYTEST) --cov --cov-report=term:skip-covered

smoke: setup-dev  ## Test the pipeline of a real small language model (three minutes)
	@$(BIN)/pytest -m "" tests/end_to_end/test_assistant.py

check: lint types  ## Run ruff and mypy

lint: setup-dev  ## Run ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup-dev  ## Run mypy
	@$(BIN)/mypy

format: setup-dev  ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

reference: setup-dev  ## Generate docs/reference from the code
	@$(BIN)/python docs/reference/generate.py

lock:  ## Update the locks; upgrade only named packages: make lock UPGRADE="fastapi redis"
	rm -rf .venv.lock && $(PYTHON) -m venv .venv.lock
	.venv.lock/bin/pip install -q $$(grep -oE '^(packaging|uv)==[^ ;]*' requirements.lock)
	$(COMPILE) pyproject.toml --group models -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock -o requirements-dev.lock
	.venv.lock/bin/python -m deployments.install.locked
	rm -rf .venv.lock

clean:  ## Remove .venv; state and data stay
	rm -rf .venv

# pip first, for torch: it takes the CPU wheel where one is offered, uv would take the CUDA build of several GB.
# Its hash is therefore not checked: the lock has those of the builds that every index has, uv finds torch there already.
# Without dependencies: the lock names all that is needed, and the packages of the models ask for more than their files.
# Byte-compiled at install, as PYTHONDONTWRITEBYTECODE may be set: without, every start takes 10 s longer.
.venv/ready: requirements.lock pyproject.toml | supported
	@echo "Setting up .venv from requirements.lock (3 GB, once; 7 GB where torch comes with CUDA) ..."
	@$(WHOLE) || $(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install -q --disable-pip-version-check $$(grep -oE '^(uv|torch)==[^ ;]*' requirements.lock)
	@$(INSTALL) --compile-bytecode --no-deps -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python deployments/install/imports.py
	@$(BIN)/python -m services.runtime.prefect_database > /dev/null
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.lock
	@echo "Adding what tests and checks need from requirements-dev.lock ..."
	@$(INSTALL) --compile-bytecode --no-deps -r requirements-dev.lock
	@touch $@
