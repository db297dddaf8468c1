# `make demo` and `make test` set up all they need; PYTHON=python3.12 chooses the Python.
PYTHON ?= python3
# EXPERIMENT=config/experiments/mine.yaml is laid over config/config.yaml.
CONFIG = $(if $(EXPERIMENT),--configfile $(EXPERIMENT))
SELECTED = $(if $(filter all,$(TESTS)),-m "not soak")
TOOLS := envs/train/requirements.txt envs/workflow/requirements.txt
DEV := envs/dev/requirements.txt
SETUP = $(PYTHON) scripts/make_environment.py --directory .venv --lock

.PHONY: help setup setup-dev demo test test-plans test-runs test-cluster soak unit check tune lock schemas figures plan verify explain diff reproduce restore prune clean

help: ## these targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: ## make .venv from the lock files
	@$(SETUP) $(TOOLS)

setup-dev: ## setup, and what tests and checks need
	@$(SETUP) $(TOOLS) $(DEV)

demo: setup ## the whole default experiment, or EXPERIMENT=config/experiments/mine.yaml: data to report
	.venv/bin/snakemake $(CONFIG)

test: setup-dev check ## checks and tests; TESTS=all adds the long ones
	@$(MAKE) --no-print-directory --jobs 3 test-plans test-runs $(if $(filter all,$(TESTS)),test-cluster)

# Plans need one core, runs seldom two, a cluster is mostly waited for.
test-plans:
	.venv/bin/python -m pytest tests/dag tests/unit tests/integration $(SELECTED)

test-runs:
	.venv/bin/python -m pytest tests/end_to_end tests/gpu $(SELECTED)

test-cluster: setup-dev ## profiles/slurm on a SLURM cluster of this machine; needs root and the Debian packages of .ci/run
	.venv/bin/python -m pytest tests/cluster -m "not soak"

soak: setup-dev ## thirty kills at random moments over all rules, each fault of a cluster ten times; figures: benchmarks/soak*.json
	.venv/bin/python -m pytest -m soak

unit: setup-dev ## the fast tests only
	.venv/bin/python -m pytest tests/unit

check: setup-dev ## formatting, types, lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/mypy
	.venv/bin/snakemake --lint
	@for one in export hosted kaito; do .venv/bin/snakemake --lint --configfile config/experiments/$$one.yaml || exit 1; done

tune: setup ## every technique at each learning rate of the grid
	.venv/bin/snakemake tune --configfile config/experiments/tune.yaml

lock: setup-dev ## resolve envs/*/requirements.in anew; UPGRADE=--upgrade takes newer versions
	.venv/bin/python tools/lock_environments.py $(UPGRADE)

schemas: setup ## write config/schemas/ from the typed models
	.venv/bin/python tools/write_schemas.py

figures: setup ## the measured tables of README.md, from the finished default run
	.venv/bin/python tools/write_figures.py

plan: setup ## what the jobs that are due would ask for: cores, memory, time; ARGS=--forceall for all
	@.venv/bin/python tools/plan_resources.py $(CONFIG) $(ARGS)

verify: setup ## prove every result, from the raw data to the report
	@.venv/bin/python tools/verify.py

explain: setup ## FILE=results/...: what made it, and would Snakemake make it again?
	@.venv/bin/python tools/explain.py $(FILE) $(CONFIG)

diff: setup ## A=results/runs/... B=...: what differs between two runs; REVISION:results/runs/... is an older one
	@.venv/bin/python tools/diff_runs.py $(A) $(B)

reproduce: setup ## RUN=results/runs/...: run a cell again in a clean directory and compare hashes
	.venv/bin/python tools/reproduce.py $(RUN) $(CONFIG) $(ARGS)

restore: setup ## bring back the results that dvc.lock names, proven; ARGS=--force overwrites local ones
	@.venv/bin/python tools/restore.py $(ARGS)

prune: setup ## list results that the last run doesn't name; ARGS=--delete removes them
	@.venv/bin/python tools/prune.py $(ARGS)

clean: ## remove checkpoints of unfinished runs and evidence of failed gates, never a result
	rm -rf work/training work/tuning work/pretraining work/reproduce work/parity
