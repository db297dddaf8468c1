"""Read and check the experiment; define the names that every rules file uses.

The working directory is a project: the checkout itself, or any other, whose config/ is laid over the checkout's. Commands
name files of the checkout by $SNAKETUNE, which `process.set_up` sets: they and the inputs are the same wherever it is.

`inputs`, `job_params` and `needs` hold the functions of wildcards, `targets` the lists of files; all
four are in scripts/snaketune/dag/. Directories of results/ are in capitals (dag/patterns.py).
"""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Of a module, `workflow.basedir` is the directory of the Snakefile that uses it.
ROOT = Path(workflow.snakefile).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune.core.errors import UserError
from snaketune.core.layout import ADAPTER_FILE, ADAPTER_FILES, GENAI_FILES, INPUTS_FILE, MODEL_FILES, ONNX_FILES
from snaketune.core.layout import (
    PACKAGE_FILES,
    PREFIX_FILE,
    RECORDS,
    SPLITS,
    TEST_FILES,
    TOKENIZER_FILES,
    TRAINING_FILES,
)
from snaketune.dag import process, terminal
from snaketune.dag.inputs import Inputs
from snaketune.dag.job_params import JobParams, not_a_trigger
from snaketune.dag.named_columns import check_columns
from snaketune.dag.patterns import BASE, CORPUS, DATA, EXPORTS, MODEL, PLOTS, PROPERTIES, REPORT, RUN
from snaketune.dag.patterns import RUNS, SUMMARY, SWITCHABLE, TABLE, TEST, TOKENIZER, TRAINING, TUNING
from snaketune.dag.patterns import UNTUNED, UNTUNED_FORMS, files_in, one_of
from snaketune.dag.resources import JobResources
from snaketune.dag.shared_imports import share_imports
from snaketune.dag.targets import Targets, required
from snaketune.platforms.kaito import jobs as kaito_jobs
from snaketune.platforms.registry import read_matrix

OWN = [path for path in [Path("config/config.yaml")] if path.is_file()]
try:
    process.check_config_files(OWN)
except UserError as error:
    raise WorkflowError(str(error)) from None

if OWN or workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


try:
    process.check_config_files(workflow.configfiles)
    MATRIX = read_matrix(process.experiment(workflow, config, ROOT), Path(), ROOT, process.sources(workflow))
    process.check_trackers(workflow, MATRIX.experiment.tracking)
    if workflow.is_main_process:
        check_columns(MATRIX)
except UserError as error:
    raise WorkflowError(str(error)) from None

if MATRIX.left_out and workflow.is_main_process:
    logger.warning(f"warning: {MATRIX.left_out}")
process.set_up(workflow, ROOT)
terminal.install(workflow)
EXPERIMENT = MATRIX.experiment
inputs, job_params, needs, targets = (
    Inputs(MATRIX),
    JobParams(MATRIX, ROOT),
    JobResources(MATRIX, workflow),
    Targets(MATRIX),
)
SERVED = kaito_jobs.served(MATRIX)
CONFIRM = "--confirm" if EXPERIMENT.publish.confirm else ""


def run_of(techniques):
    """Return a regular expression of the untuned model's exports (empty) or of a run of these techniques."""
    return rf"|/({one_of(MATRIX.scenarios)})/({one_of(techniques)})/seed-\d+"


# Before any rule: otherwise Snakemake forgets the constraints of outputs in an object storage.
wildcard_constraints:
    model=one_of(MATRIX.models),
    scenario=one_of(MATRIX.scenarios),
    technique=one_of(MATRIX.techniques),
    precision=one_of(MATRIX.exports),
    seed=r"\d+",
    tree="models|runs",
    run=run_of(MATRIX.merged),
    rate=r"[0-9.e-]+",


onstart:
    process.warn_of_machine(workflow)
    process.prepare_cluster(workflow)
    share_imports(workflow, EXPERIMENT.share_imports, {one.model_type for one in MATRIX.models.values()})


onsuccess:
    terminal.tell(succeeded=True)


onerror:
    terminal.tell(succeeded=False)
