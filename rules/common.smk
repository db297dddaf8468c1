"""The experiment, checked, and the helpers that turn a cell into paths and a recipe."""

import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "scripts"))

from snaketune.contract import named, property_run
from snaketune.digest import FileDigests, code_digest, file_digest
from snaketune.errors import UserError
from snaketune.files import prefer_programs_of
from snaketune.layout import ADAPTER_FILES, GENAI_FILES, MODEL_FILES, ONNX_FILES, RECORDS, SPLITS
from snaketune.layout import TEST_FILES, TOKENIZER_FILES, TRAINING_FILES, model_files
from snaketune.precisions import backend_of, calibrates
from snaketune.prefix import PREFIX_FILE
from snaketune.recipes import Recipes
from snaketune.scenarios import DOCUMENTATION

try:
    MATRIX = Recipes(config, Path())
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
PROBE = EXPERIMENT.parity.probe.model_dump()

# A prefix can't be merged: its run ends with the base, started from it.
PREFIXED = [name for name, technique in MATRIX.techniques.items() if not technique.merges]
MERGED = ["base", *(name for name in MATRIX.techniques if name not in PREFIXED)]
GENAI = MATRIX.genai
QUANTIZED = [name for name in MATRIX.exports if name not in GENAI]

# Jobs find this environment's programs without an activated shell; conda brings its own.
if not any(str(method).endswith("conda") for method in workflow.deployment_settings.deployment_method):
    prefer_programs_of(Path(sys.executable).parent)


def one_of(names):
    return "|".join(map(re.escape, names)) or "none"


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


def training_recipe(wildcards, rate=None):
    seed = int(wildcards.get("seed", EXPERIMENT.seeds[0]))
    return recipe("train.py", **MATRIX.training_recipe(wildcards.model, wildcards.technique, seed, rate))


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


def launcher(wildcards):
    """torchrun where the technique needs more ranks or DeepSpeed, else plain Python."""
    technique = MATRIX.techniques[wildcards.technique]
    ranks = int(wildcards.get("ranks", technique.world_size))
    if ranks == 1 and technique.engine.type == "torch":
        return "python"
    return f"python -m torch.distributed.run --standalone --nproc-per-node {ranks}"


def training_cores(wildcards):
    technique = MATRIX.techniques[wildcards.technique]
    return technique.world_size * technique.threads


def threads_of_a_rank(wildcards):
    return MATRIX.techniques[wildcards.technique].threads


def every_core(wildcards):
    """So that nothing runs beside; where Snakemake has no number of cores, each job has a machine to itself."""
    try:
        return workflow.cores
    except WorkflowError:
        return training_cores(wildcards)


def data_recipe(wildcards):
    source = MATRIX.scenarios[wildcards.scenario].source
    # The corpus is imported by name, which the script's own digest can't see.
    path = ROOT / f"scripts/snaketune/corpora/{source.builtin}.py"
    corpus = code_digest(path, ROOT / "scripts") if source.builtin else None
    return recipe(
        "prepare_data.py",
        **MATRIX.data_recipe(wildcards.scenario),
        source_digests=digests_of(source.paths),
        corpus_code=corpus,
    )


def digests_of(paths):
    """The content of the user's own files: their times may say anything (`cp -p`, `git checkout`)."""
    return {str(path): DIGESTS.of(Path(path)) for path in paths if path}


def scenario_source(wildcards):
    """The user's files, or the corpus, of which only the manifest is compared; the hub has none."""
    source = MATRIX.scenarios[wildcards.scenario].source
    if source.builtin in DOCUMENTATION:
        return {"manifest": f"{CORPUS}/manifest.json", "source": ancient(f"{CORPUS}/documentation.jsonl")}
    return {"source": ancient(source.paths)}


def files_of_a_local_model(wildcards):
    path = MATRIX.models[wildcards.model].path
    return list(map(str, model_files(Path(path)))) if path else []


def model_recipe(wildcards):
    origin = MATRIX.models[wildcards.model].model_dump(include={"hub", "revision", "path"})
    return recipe("fetch_model.py", **origin, source_digests=digests_of(files_of_a_local_model(wildcards)))


def evaluation_recipe(wildcards, **values):
    return recipe("evaluate.py", **MATRIX.evaluation_recipe(wildcards.scenario), **values)


def record_of_a_run(wildcards):
    """The manifest of the model that a run ends with."""
    return f"{RUN}/{'prefix' if wildcards.technique in PREFIXED else 'merged'}/manifest.json"


def evaluated_model(wildcards):
    """A merged model; or, as a prefix can't be merged, the base that starts from it."""
    if wildcards.technique in PREFIXED:
        directory, prefix = BASE, [f"{RUN}/prefix/{PREFIX_FILE}"]
        manifests = [f"{BASE}/manifest.json", f"{RUN}/prefix/manifest.json"]
    else:
        directory, prefix, manifests = f"{RUN}/merged", [], [f"{RUN}/merged/manifest.json"]
    return {
        "manifests": manifests,
        "model": ancient(f"{directory}/model.safetensors"),
        "files": ancient(files_in(directory, MODEL_FILES[1:])),
        "prefix": ancient(prefix),
    }


def exported_prefix(wildcards):
    return f"{RUN}/onnx/{{precision}}/{PREFIX_FILE}" if wildcards.technique in PREFIXED else []


def exported_prefixes(wildcards):
    names = MATRIX.precisions_of(wildcards.technique) if wildcards.technique in PREFIXED else []
    return [f"{RUN}/onnx/{name}/{PREFIX_FILE}" for name in names]


def exports_used(wildcards):
    """Every export of a run; large files are compared by their manifests."""
    names = MATRIX.precisions_of(wildcards.technique)
    return {
        "manifests": [f"{RUN}/onnx/{name}/manifest.json" for name in names],
        "models": ancient([path for name in names for path in files_in(f"{RUN}/onnx/{name}", used_files(name))]),
    }


def evaluations_of(wildcards):
    backends = ["torch", *map(backend_of, MATRIX.precisions_of(wildcards.technique))]
    return [f"{RUN}/evaluation/{name}{end}" for name in backends for end in (".json", ".predictions.jsonl")]


def used_files(precision):
    """What a backend reads: of a temporary ONNX model only these are sure to be there still."""
    return list(GENAI_FILES) if precision in GENAI else [*ONNX_FILES[:2], "tokenizer.json"]


def calibration_tokens(wildcards):
    """Training rows, for a precision whose scales are found on them."""
    if not calibrates(MATRIX.export_recipe(wildcards.precision)):
        return []
    return [f"{TRAINING}/manifest.json", ancient(f"{TRAINING}/train.safetensors")]


def adapter_logits(wildcards):
    trained = MATRIX.techniques.get(wildcards.technique)
    return f"{RUN}/evaluation/adapter.logits.safetensors" if trained and trained.adapter else []
