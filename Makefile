# `make demo` and `make test` set up all they need; PYTHON=python3.12 chooses the Python.
PYTHON ?= python3
TRAIN := envs/train/requirements.txt
DEV := envs/dev/requirements.txt
SETUP = $(PYTHON) scripts/make_environment.py --directory .venv --lock

.PHONY: help setup setup-dev demo test unit check lint tune lock schemas figures clean

help: ## these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: ## make .venv from the lock file
	@$(SETUP) $(TRAIN)

setup-dev:
	@$(SETUP) $(TRAIN) $(DEV)

demo: setup ## the whole default experiment: data to report
	.venv/bin/snakemake

test: setup-dev check ## all checks and tests
	.venv/bin/python -m pytest

unit: setup-dev ## the fast tests only
	.venv/bin/python -m pytest tests/unit

check: setup-dev ## formatting, types, lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/mypy
	.venv/bin/snakemake --lint

tune: setup ## every technique at each learning rate of the grid
	.venv/bin/snakemake tune --configfile config/experiments/tune.yaml

lock: setup-dev ## resolve envs/*/requirements.in anew; UPGRADE=--upgrade takes newer versions
	.venv/bin/python scripts/lock_environments.py $(UPGRADE)

schemas: setup ## write config/schemas/ from the typed models
	.venv/bin/python scripts/write_schemas.py

figures: setup ## the measured tables of README.md, from the finished default run
	.venv/bin/python scripts/write_figures.py

clean: ## remove what unfinished runs left, never a result
	rm -rf work/training work/tuning work/pretraining
