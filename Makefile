# `make demo` and `make test` set up everything they need; PYTHON=python3.12 chooses the Python.
PYTHON ?= python3
# EXPERIMENT=config/experiments/mine.yaml overlays that file on config/config.yaml.
$(foreach one,$(EXPERIMENT),$(if $(wildcard $(one)),,$(error EXPERIMENT=$(one): no such file: give the path of a YAML file, such as config/experiments/smollm2.yaml)))
# $(call needed,RUN,example): the variable, without which a target can't do anything.
needed = $(or $($(1)),$(error $(1) is missing: make $@ $(1)=$(2)))
CONFIG = $(if $(EXPERIMENT),--configfile $(EXPERIMENT))
ALL = $(filter all,$(TESTS))
TOOLS := envs/train/requirements.txt envs/workflow/requirements.txt
DEV := envs/dev/requirements.txt
SETUP = $(PYTHON) scripts/make_environment.py --directory .venv --lock

.PHONY: help setup setup-dev demo test test-plans test-runs test-cluster test-platforms soak gpu bench bench-all part part-table smollm2 smollm2-table unit check tune more-seeds lock schemas docs figures export-table estimates pin new plan verify explain chat publish diff reproduce restore prune clean

help: ## list these targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: ## create .venv from the lock files
	@$(SETUP) $(TOOLS)

setup-dev: ## create .venv with what tests and checks need
	@$(SETUP) $(TOOLS) $(DEV)

demo: setup ## run the default experiment, from data to report; EXPERIMENT=config/experiments/mine.yaml runs yours
	@echo "$(if $(EXPERIMENT),Running $(EXPERIMENT),Running the default experiment: about ten minutes on two cores)"
	.venv/bin/snakemake $(CONFIG)

test: setup-dev ## run checks and tests; TESTS=all adds the slow ones
	@$(MAKE) --no-print-directory --jobs 4 check test-plans test-runs $(if $(ALL),test-platforms)

# Side by side on two cores: plans need one, runs seldom two, a cluster is mostly waited for.
test-plans:
	.venv/bin/python -m pytest tests/unit tests/dag $(if $(ALL),tests/integration --ignore tests/integration/platforms)

test-runs:
	.venv/bin/python -m pytest tests/end_to_end $(if $(ALL),-m "not soak")
	$(if $(ALL),.venv/bin/python -m pytest tests/gpu -m long)

test-cluster: setup-dev ## test profiles/slurm on a local SLURM cluster; needs root and the Debian packages in .ci/run
	.venv/bin/python -m pytest tests/cluster

test-platforms: test-cluster
	.venv/bin/python -m pytest tests/integration/platforms

soak: setup-dev ## kill jobs of all rules at thirty random moments, provoke each cluster fault ten times; figures: benchmarks/soak*.json
	.venv/bin/python -m pytest tests/end_to_end tests/dag -m soak --record benchmarks
	.venv/bin/python -m pytest tests/cluster --times 10

gpu: setup-dev ## train every technique on a GPU; figures: benchmarks/gpu.json
	.venv/bin/python -m pytest tests/gpu -m long --record benchmarks

bench: setup ## compare speed with TRL, torch and llama.cpp on a quiet machine, 45 minutes: docs/speed.md
	.venv/bin/snakemake results/models/smollm2-135m-instruct/base/manifest.json --configfile config/experiments/smollm2.yaml
	.venv/bin/snakemake results/models/phi3-36m/base/manifest.json --configfile config/experiments/published-table.yaml
	.venv/bin/python benchmarks/training.py $(ARGS)
	.venv/bin/python benchmarks/exports.py --rounds 5
	.venv/bin/python benchmarks/exports.py --rounds 5 --run-directory work/benchmarks/exports-smollm2 --model-directory results/models/smollm2-135m-instruct/base --output benchmarks/exports-smollm2.json
	.venv/bin/python benchmarks/table.py

bench-all: setup-dev bench demo ## the same, plus the workflow's own cost: tokens computed, a no-op call, the default matrix against other programs
	.venv/bin/python benchmarks/step.py
	.venv/bin/python benchmarks/workflow.py
	.venv/bin/python benchmarks/peers.py
	.venv/bin/python benchmarks/table.py

part: setup ## EXPERIMENT=config/experiments/smollm2-tune.yaml PART=1/1: run one part of an experiment, at most 80 minutes on two cores, and keep its figures in benchmarks/; without PART, list the parts
	.venv/bin/python tools/in_parts.py --experiment $(call needed,EXPERIMENT,config/experiments/smollm2-tune.yaml) $(if $(PART),--run --part $(PART)) $(ARGS)

part-table: setup ## EXPERIMENT=config/experiments/smollm2-tune.yaml: write the table of the parts run so far into its page
	.venv/bin/python tools/in_parts.py --experiment $(call needed,EXPERIMENT,config/experiments/smollm2-tune.yaml) --table $(ARGS)

smollm2 smollm2-table: EXPERIMENT := config/experiments/smollm2-table.yaml
smollm2: part ## PART=1/5: the same for the SmolLM2 experiment: seven techniques, two tasks, three seeds
smollm2-table: part-table ## write the README's SmolLM2 table from the parts in benchmarks/smollm2

unit: setup-dev ## run the fast tests only
	.venv/bin/python -m pytest tests/unit

check: setup-dev ## check formatting, types, imports and lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/snakefmt --check Snakefile rules
	.venv/bin/mypy
	PYTHONPATH=scripts .venv/bin/lint-imports
	.venv/bin/snakemake --lint
	@for one in export hosted kaito; do .venv/bin/snakemake --lint --configfile config/experiments/$$one.yaml || exit 1; done

tune: setup ## train every technique at each learning rate of the grid; EXPERIMENT=… tunes yours
	.venv/bin/snakemake tune --configfile config/experiments/tune.yaml $(EXPERIMENT)

lock: setup-dev ## resolve envs/*/requirements.in again; UPGRADE=--upgrade takes newer versions
	.venv/bin/python tools/lock_environments.py $(UPGRADE)

schemas: setup ## generate config/schemas/ and docs/reference.md from the typed models
	.venv/bin/python tools/write_schemas.py

docs: setup-dev ## build the documents as an offline site: work/site/docs/index.html
	.venv/bin/sphinx-build --quiet --nitpicky --fail-on-warning --keep-going -c docs . work/site
	@echo "open work/site/docs/index.html"

figures: setup ## write the measured tables of README.md and docs/ from the finished run
	.venv/bin/python tools/write_figures.py

# The runs of config/experiments/smollm2-exports.yaml; $(call of_runs,RUNS,FILE): a file of each.
EXPORT_RUNS = $(foreach one,classification qa-500,$(addprefix $(one)/,full lora lora-int4))
of_runs = $(patsubst %,results/runs/smollm2-135m-instruct/%/seed-1/$(2),$(1))
MEASURED = $(or $(PART),$(EXPORT_RUNS))
export-table: setup ## measure every precision of a real model and write the tables in docs/export.md: PART=training, then each run, such as PART=classification/full; five hours on two cores without PART
	.venv/bin/snakemake $(if $(filter training,$(PART)),$(call of_runs,$(EXPORT_RUNS),manifest.json),$(call of_runs,$(MEASURED),parity.json) $(call of_runs,$(filter-out %-int4,$(MEASURED)),benchmark.json)) --configfile config/experiments/smollm2-exports.yaml
	$(if $(filter training,$(PART)),,.venv/bin/python tools/write_exports.py)

estimates: setup ## measure training memory against its estimates and write the table in docs/scale.md
	.venv/bin/python tools/measure_memory.py

more-seeds: setup ## train additional seeds only of techniques that the finished run left undecided; ADD=2 seeds each
	.venv/bin/python tools/more_seeds.py $(if $(ADD),--add $(ADD))
	.venv/bin/snakemake --configfile $(EXPERIMENT) config/more-seeds.yaml

pin: setup ## MODEL=owner/name: write config/models/NAME.yaml for a model on the Hugging Face Hub, with its commit and sizes; NAME=… names the file
	@.venv/bin/python tools/pin.py $(call needed,MODEL,owner/name) $(if $(NAME),--name $(NAME)) $(if $(REVISION),--revision $(REVISION))

new: setup ## DATA=my.csv: write an experiment for a file of rows and show what it needs; DIR=… for a separate project directory
	@.venv/bin/python tools/new_experiment.py "$(call needed,DATA,my.csv)" $(if $(DIR),--directory "$(DIR)") $(ARGS)

plan: setup ## show what pending jobs would request and what doesn't fit; ARGS=--forceall includes finished jobs, ARGS="--gpu-memory 24 --resources gpu=1" describes another machine
	@.venv/bin/python tools/plan_resources.py $(CONFIG) $(ARGS)

verify: setup ## verify the hash of every result, from the raw data to the report
	@.venv/bin/python tools/verify.py

explain: setup ## FILE=results/...: show what made it and whether Snakemake would remake it
	@.venv/bin/python tools/explain.py "$(call needed,FILE,results/summary.csv)" $(CONFIG)

chat: setup ## RUN=results/runs/...: chat with its model and the untuned one; BACKEND=genai-int4 uses an export, PAGE=1 a local web page
	@.venv/bin/python tools/chat.py $(call needed,RUN,results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1) $(if $(BACKEND),--backend $(BACKEND)) $(if $(PAGE),--page) $(ARGS)

publish: setup ## RUN=results/runs/... TO=folder: write its adapter, or with MERGED=1 the whole model, in the Hugging Face Hub's layout; nothing is sent
	@.venv/bin/python tools/publish_model.py $(call needed,RUN,results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1) "$(call needed,TO,folder)" $(if $(MERGED),--merged) $(if $(BASE),--base $(BASE))

diff: setup ## A=results/runs/... B=...: show the differences between two runs, also as a page; REVISION:results/runs/... is a run of another commit
	@.venv/bin/python tools/diff_runs.py $(call needed,A,results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1) $(call needed,B,results/runs/MODEL/SCENARIO/ANOTHER/seed-1) $(if $(PAGE),--page $(PAGE))

reproduce: setup ## RUN=results/runs/...: repeat a run in a clean directory and compare hashes
	.venv/bin/python tools/reproduce.py $(call needed,RUN,results/runs/MODEL/SCENARIO/TECHNIQUE/seed-1) $(CONFIG) $(ARGS)

restore: setup ## restore and verify the results in dvc.lock; ARGS=--force overwrites local ones
	@.venv/bin/python tools/restore.py $(ARGS)

prune: setup ## list results that the last run no longer includes; ARGS=--delete removes them
	@.venv/bin/python tools/prune.py $(ARGS)

clean: ## remove checkpoints of unfinished runs and evidence of failed gates, not results
	rm -rf work/training work/tuning work/pretraining work/reproduce work/parity
