# The two commands: `make demo` and `make test`. Both set up what they need; the second time nothing is set up.
.DEFAULT_GOAL := help
.PHONY: help setup upgrade demo demo-llm test test-all smoke check lint types format lock clean
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadgroup --no-loadscope-reorder --durations=15
PYTHON ?= python3
export OMP_NUM_THREADS ?= 2
export GOMP_SPINCOUNT ?= 2000

help:  ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

setup: .venv/ready  ## The virtual environment, from requirements.lock

upgrade: setup  ## A backup, what is new from git, and everything started anew while the gateway goes on answering
	@$(BIN)/driftline backup
	git pull --ff-only
	@$(MAKE) --no-print-directory setup
	@$(BIN)/driftline restart
	@$(BIN)/driftline deploy

demo: setup  ## The whole chain on real flights: data to monitored, retrained release
	@$(BIN)/driftline demo flights

demo-llm: setup  ## The same for a language model: pairs, LoRA, gates, a release that chats
	@$(BIN)/driftline demo assistant

test: setup  ## All tests but the long ones, offline
	@$(PYTEST)

test-all: setup  ## The long ones, too: kill -9 of everything in every stage
	@$(PYTEST) -m ""

smoke: setup  ## The real small language model through its whole chain: three minutes
	@$(BIN)/pytest -m "" tests/end_to_end/test_assistant.py

check: lint types  ## Lint and types

lint: setup  ## ruff: lint and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup  ## mypy
	@$(BIN)/mypy

format: setup  ## Put the code in form
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

lock:  ## Resolve pyproject.toml anew into requirements.lock
	rm -rf .venv.lock && $(PYTHON) -m venv .venv.lock && .venv.lock/bin/pip install -q torch==2.13.0 uv
	.venv.lock/bin/uv pip install -q --python .venv.lock/bin/python -e .[dev]
	.venv.lock/bin/uv pip install -q --python .venv.lock/bin/python --no-deps --group models
	{ echo '# Made by `make lock`. torch comes first, by pip: see pyproject.toml.'; \
	  .venv.lock/bin/uv pip freeze --python .venv.lock/bin/python --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock
	rm -rf .venv.lock

clean:  ## Remove the virtual environment; state and data stay
	rm -rf .venv

# pip first, for torch: it takes the CPU wheel where one is offered, uv would take the CUDA build of several GB.
# Without dependencies: the lock names all that is needed, and the package of the small model asks for more than its file.
# Byte-compiled at install, as PYTHONDONTWRITEBYTECODE may be set: without, every start takes 10 s longer.
.venv/ready: requirements.lock pyproject.toml
	@echo "Setting up .venv from requirements.lock (3.2 GB, once) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --disable-pip-version-check uv "$$(grep '^torch==' requirements.lock)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode --no-deps -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@$(BIN)/python -m tasks.serve.prefect_database > /dev/null
	@touch $@
