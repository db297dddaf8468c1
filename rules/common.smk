"""The experiment, checked, and the helpers that turn a cell into paths and a recipe."""

import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune.config.matrix import LINEAR_LAYERS
from snaketune.core.digest import code_digest
from snaketune.core.errors import UserError
from snaketune.core.file_digests import FileDigests, file_digest
from snaketune.core.files import prefer_programs_of
from snaketune.core.layout import ADAPTER_FILES, GENAI_FILES, MODEL_FILES, ONNX_FILES, PACKAGE_FILES, PREFIX_FILE
from snaketune.core.layout import RECORDS, SPLITS, TEST_FILES, TOKENIZER_FILES, TRAINING_FILES
from snaketune.dag import slurm_preflight
from snaketune.dag.inputs import Inputs
from snaketune.dag.patterns import BASE, CARD, CORPUS, DATA, MODEL, PLOTS, PROGRAM, PROPERTIES, REPORT, RUN, RUNS
from snaketune.dag.patterns import SUMMARY, SWITCHABLE, TABLE, TEMPLATE, TEST, TOKENIZER, TRAINING, TUNING, UNTUNED
from snaketune.dag.patterns import files_in, one_of
from snaketune.dag.targets import Targets, required
from snaketune.export.runtime_adapters.files import ADAPTER_FILE, INPUTS_FILE, parts_of_all
from snaketune.platforms.hosted import jobs as hosted_jobs
from snaketune.platforms.kaito import jobs as kaito_jobs
from snaketune.platforms.olive import jobs as olive_jobs
from snaketune.platforms.olive import project
from snaketune.platforms.registry import read_matrix

try:
    MATRIX = read_matrix(config, Path())
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = MATRIX.experiment
DIGESTS = FileDigests(Path("work/digests.json"))
PROBE = EXPERIMENT.parity.probe.model_dump()
targets, inputs = Targets(MATRIX), Inputs(MATRIX)
# Every scenario's untuned model has the same weights: one of them is enough.
EXPORTED_BASE = UNTUNED.replace("{scenario}", EXPERIMENT.scenarios[0])
SERVED = kaito_jobs.served(MATRIX)
HOSTED = RUNS

# Jobs find this environment's programs without an activated shell; conda brings its own.
if not any(str(method).endswith("conda") for method in workflow.deployment_settings.deployment_method):
    prefer_programs_of(Path(sys.executable).parent)
    # Where a fork server runs (snaketune/core/fork_server.py), jobs start in a tenth of a second.
    if forks := os.environ.get("SNAKETUNE_FORK_SERVER"):
        prefer_programs_of(Path(forks) / "bin")


def pass_on(number, frame):
    """SLURM warns the first process of a job, or all: training, and what started it, must hear it in any case."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            process.send_signal(number)


signal.signal(signal.SIGUSR1, pass_on)


def prepare_cluster():
    """Before anything is submitted to SLURM, once it is known which jobs are due."""
    if workflow.executor_plugin.name != "slurm":
        return
    dag = workflow.dag
    jobs = dict.fromkeys(dag.get_job_group(job) or job for job in dag.needrun_jobs() if not job.is_local)
    try:
        slurm_preflight.prepare(jobs, workflow.executor_settings, Path(workflow.workdir_init), logger)
    except UserError as error:
        raise WorkflowError(str(error)) from None


OF_HOSTED = {
    "model": one_of(sorted({one.row_model for one in MATRIX.hosted.values()})),
    "technique": one_of(MATRIX.hosted),
    "part": r"seed-\d+|untuned",
}


def recipe(script, environment="train", **values):
    """All that can change a job's result beside its inputs, as one value.

    Snakemake compares params as a nameless set, so what is spread over several could be
    swapped unseen. The lock file stands for the environment, a syntax-tree digest for the code.
    """
    digests = {
        "code": code_digest(ROOT / "scripts" / script),
        "environment": file_digest(ROOT / "envs" / environment / "requirements.txt"),
    }
    return json.dumps(values | digests, sort_keys=True)


def live_options(wildcards, output):
    """Changes no result: params from functions of `output` aren't compared with the last run's."""
    names = "/".join(str(value) for value in dict(wildcards).values())
    return ["--live", f"work/live/{names}"] if EXPERIMENT.tracking == "dvclive" else []


def checkpoint_steps(wildcards, output):
    """Not compared either: where a run could go on from changes nothing."""
    return EXPERIMENT.training.checkpoint_steps


def pretraining_checkpoint_steps(wildcards, output):
    pretraining = MATRIX.models[wildcards.model].build.pretraining
    return pretraining.checkpoint_steps if pretraining else 1


def launcher(wildcards, resources):
    """Several ranks, or DeepSpeed, need a launcher; on how many nodes isn't part of the recipe."""
    technique = MATRIX.techniques[wildcards.technique]
    ranks, nodes = int(wildcards.get("ranks", technique.world_size)), int(resources.get("nodes") or 1)
    if ranks == 1 and technique.engine.type == "torch":
        return "python"
    return f"python scripts/launch.py --nodes {nodes} --ranks {ranks} --threads {technique.threads}"


def training_cores(wildcards):
    technique = MATRIX.techniques[wildcards.technique]
    return int(wildcards.get("ranks", technique.world_size)) * technique.threads


def threads_of_a_rank(wildcards):
    return MATRIX.techniques[wildcards.technique].threads


def every_core(used):
    """So that nothing runs beside; a cluster's profile asks for a whole node, and here for the cores that are ``used``."""

    def cores(wildcards):
        try:
            if workflow.local_exec:
                return workflow.cores
        except WorkflowError:
            pass
        return used(wildcards)

    return cores


def confirmation(wildcards, output):
    """Not compared either: leave to send changes nothing that was sent."""
    return "--confirm" if EXPERIMENT.publish.confirm else ""
