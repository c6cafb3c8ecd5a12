# `make` alone lists the targets. Each is one line: what it does is in scripts/, bench/ or the package.
VENV := .venv/bin
SOURCES := src tests bench scripts

# Without the compiled sources beside them all programs and each worker of pytest would compile them again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup appliance debian demo test soak lint bench openapi docs clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## system packages, .venv, the service's user, the appliances (only what is missing)
	@PYTHON='$(PYTHON)' scripts/setup

appliance: ## build the demo appliance, build/appliance/demo.vws
	@PYTHON='$(PYTHON)' scripts/setup packages python
	@mkdir -p build/appliance
	@$(VENV)/vws image build appliances/demo.yaml --out build/appliance/demo.vws --cache build/cache

debian: ## build the Debian appliance with NFS and Slurm, build/appliance/debian.vws (a minute or two)
	@PYTHON='$(PYTHON)' scripts/setup packages python
	@mkdir -p build/appliance
	@$(VENV)/vws image build appliances/debian.yaml --out build/appliance/debian.vws --cache build/cache

demo: setup ## lease three virtual machines, then launch a cluster; use them, give them back (KEEP=1 leaves the cluster)
	@KEEP='$(KEEP)' scripts/demo

test: setup ## all tests, ruff and mypy among them (ARGS='tests/core -k name' for some)
	@$(VENV)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: setup ## the tests that take long
	@$(VENV)/pytest -m soak $(ARGS)

lint: setup ## ruff check, ruff format --check, mypy
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check --quiet .
	@$(VENV)/mypy

bench: setup ## the numbers of bench/RESULTS.md
	@$(VENV)/python -m bench $(ARGS)

openapi: docs ## the same as docs
docs: setup ## draw docs/states.md and docs/openapi.json anew from the code
	@$(VENV)/python -m vws.docs

clean: ## remove what was built (.venv and the downloaded packages too)
	@rm -rf build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	@find src -name '*.so' -delete
	@find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +
