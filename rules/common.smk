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

from snaketune.platforms.hosted import jobs as hosted_jobs
from snaketune.platforms.kaito import jobs as kaito_jobs
from snaketune.platforms.olive import project, olive_config
from snaketune.platforms.registry import read_matrix
from snaketune.dag import slurm_preflight
from snaketune.export.runtime_adapters.files import ADAPTER_FILE, INPUTS_FILE, parts_of_all
from snaketune.dag.contract import hosted_files, hosted_records, named, property_run
from snaketune.core.digest import code_digest
from snaketune.core.errors import UserError
from snaketune.core.file_digests import FileDigests, file_digest
from snaketune.core.files import prefer_programs_of
from snaketune.core.layout import ADAPTER_FILES, GENAI_FILES, MODEL_FILES, ONNX_FILES, PACKAGE_FILES, RECORDS, SPLITS
from snaketune.core.layout import TEST_FILES, TOKENIZER_FILES, TRAINING_FILES, model_files
from snaketune.core.precisions import backend_of, calibrates, files_read
from snaketune.training.prefix import PREFIX_FILE
from snaketune.config.matrix import LINEAR_LAYERS
from snaketune.config.corpora import DOCUMENTATION

try:
    MATRIX = read_matrix(config, Path())
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENT = MATRIX.experiment
DIGESTS = FileDigests(Path("work/digests.json"))
CORPUS = "results/corpus"
DATA = "results/data/{scenario}"
BASE = "results/models/{model}/base"
# Apart, so that an edit of test rows leaves what training reads as it was.
TRAINING = "results/tokens/{model}/{scenario}/training"
TEST = "results/tokens/{model}/{scenario}/test"
RUN = "results/runs/{model}/{scenario}/{technique}/seed-{seed}"
UNTUNED = "results/runs/{model}/{scenario}/base/seed-0"
SUMMARY = ["results/summary.csv", "results/comparisons.json", "results/metrics.json"]
TABLE = "results/technique_table.json"
PLOTS = ["results/plots/loss.csv", "results/plots/quality.csv"]
TEMPLATE = "report/report.html.j2"
CARD, PROGRAM = "report/model_card.md.j2", "report/run.py"
PROBE = EXPERIMENT.parity.probe.model_dump()

# A prefix can't be merged: its run ends with the base, started from it.
PREFIXED = [name for name, technique in MATRIX.techniques.items() if not technique.merges]
MERGED = ["base", *(name for name in MATRIX.techniques if name not in PREFIXED)]
GENAI = MATRIX.genai
SWITCHABLE = "results/models/{model}/switchable"
# Every scenario's untuned model has the same weights: one of them is enough.
EXPORTED_BASE = UNTUNED.replace("{scenario}", EXPERIMENT.scenarios[0])
# A quantized base has other weights; a prefix adds keys and values, not a change of layers; and of
# projections that only their seed is kept of, nothing can be exported.
SWITCHED = [
    name
    for name, technique in MATRIX.techniques.items()
    if technique.adapter
    and technique.merges
    and technique.base_precision == "fp32"
    and getattr(technique.adapter.options, "save_projection", True)
]
# Of other families the runtime's builder fuses layers that adapters change apart.
GENAI_AT_FP32 = [
    name
    for name in GENAI
    if MATRIX.exports[name].options.weights == "fp32"
    and all(MATRIX.models[model].model_type == "phi3" for model in EXPERIMENT.models)
]
SHIPPED = MATRIX.packaged
QUANTIZED = [name for name in MATRIX.exports if name not in GENAI]

SERVED = kaito_jobs.served(MATRIX)
HOSTED = "results/runs/{model}/{scenario}/{technique}"

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


def one_of(names):
    return "|".join(map(re.escape, names)) or "none"


OF_HOSTED = {
    "model": one_of(sorted({one.row_model for one in MATRIX.hosted.values()})),
    "technique": one_of(MATRIX.hosted),
    "part": r"seed-\d+|untuned",
}


def files_in(directory, names):
    return [f"{directory}/{name}" for name in names]


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


def techniques(with_adapter):
    return [name for name, technique in MATRIX.techniques.items() if (technique.adapter is not None) == with_adapter]


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
