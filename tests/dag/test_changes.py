"""For each kind of change, the exact set of jobs that must run."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import yaml
from support.experiments import UNTRAINED
from support.workspace import REPOSITORY, Workspace, jobs_due

from make_environment import pip_settings

QUANTIZED = ("int8", "int4")
REPORT = {"write_report", "record_results"}
END = {"summarize", "write_plots", "write_technique_table"} | REPORT


def after_onnx(technique: str, *precisions: str) -> set[str]:
    """What follows when these precisions of a run are made again."""
    return {f"evaluate_onnx {technique} {precision}" for precision in precisions} | {f"check_parity {technique}"} | END


def quantized(technique: str, precision: str) -> set[str]:
    return {f"quantize_onnx {technique} {precision}"} | after_onnx(technique, precision)


def exported(technique: str) -> set[str]:
    made = {f"export_onnx {technique}"}.union(*(quantized(technique, precision) for precision in QUANTIZED))
    return made | after_onnx(technique, "fp32")


def after_merged(technique: str) -> set[str]:
    return {f"evaluate_torch {technique}"} | exported(technique)


def trained(technique: str) -> set[str]:
    first = {"lora": ("train_adapter", "merge_adapter"), "full": ("train_all_weights", "copy_model")}[technique]
    return {f"{rule} {technique}" for rule in first} | after_merged(technique)


def of_all(jobs: Callable[..., set[str]], *arguments: str) -> set[str]:
    """The jobs of every run, trained or not."""
    return set().union(*(jobs(technique, *arguments) for technique in ("base", "lora", "full")))


RUNS = trained("lora") | trained("full")
PARITY = {f"check_parity {t}" for t in ("base", "lora", "full")}
EVALUATIONS = {f"evaluate_torch {t}" for t in ("base", "lora", "full")}
EVALUATIONS |= of_all(after_onnx, "fp32", *QUANTIZED) - PARITY - END
FROM_TOKENS = RUNS | EVALUATIONS | PARITY | {"tokenize_data"}
FROM_DATA = {"prepare_data"} | FROM_TOKENS
FROM_BASE = {"pretrain_model"} | after_merged("base") | FROM_TOKENS
EVERYTHING = {"collect_documentation", "train_tokenizer"} | FROM_DATA | FROM_BASE
# The jobs that must run if a file is deleted, by the first pattern that its path begins with.
DELETED = {
    "data/classification/": FROM_DATA,
    "models/phi3-1m/(base/|pretraining)": FROM_BASE,
    "models/phi3-1m/tokenizer/": FROM_BASE | {"train_tokenizer"},
    "corpus/": EVERYTHING,
    "tokens/phi3-1m/classification/": FROM_TOKENS,
    ".*/lora/seed-1/(merged/|evaluation/adapter)": {"merge_adapter lora"} | after_merged("lora"),
    ".*/full/seed-1/merged/": {"copy_model full"} | after_merged("full"),
    "(summary|comparisons|metrics)": END,
    "plots/": {"write_plots", "record_results"},
    "(params|manifest|provenance)": {"record_results"},
    "technique_table": {"write_technique_table"} | REPORT,
    "report": REPORT,
}
for technique, run in (("base", "base/seed-0"), ("lora", "lora/seed-1"), ("full", "full/seed-1")):
    onnx = "models/phi3-1m/onnx" if technique == "base" else f".*/{run}/onnx"
    DELETED |= {f".*/{run}/parity": {f"check_parity {technique}"} | REPORT, f"{onnx}/fp32/": exported(technique)}
    DELETED[f".*/{run}/evaluation/torch"] = {f"evaluate_torch {technique}", f"check_parity {technique}"} | END
    for name in ("fp32", *QUANTIZED):
        DELETED[f".*/{run}/evaluation/onnx-{name}"] = after_onnx(technique, name)
    for name in QUANTIZED:
        DELETED[f"{onnx}/{name}/"] = quantized(technique, name)
    if technique != "base":
        DELETED[f".*/{run}/"] = trained(technique)
# Every file that the experiment makes: one more or less, or another name, is a decision.
CONTRACT = Path(__file__).with_name("contract.txt").read_text().split()


def telling(names: Iterable[str]) -> list[str]:
    """Every file of the shared data and of the LoRA run; of the other runs, one a directory.

    Their further files are outputs of the same rules, and each costs a plan.
    """
    first = {name if "/runs/" not in name or "/lora/" in name else name.rsplit("/", 1)[0]: name for name in names}
    return sorted(first.values())


def test_a_deleted_contract_file_is_made_again_with_what_depends_on_it(finished: Workspace) -> None:
    contract = finished.plans()
    assert sorted(contract) == sorted(CONTRACT)
    wrong = {}
    for name, due in finished.pending_without(telling(contract)).items():
        expected = next(jobs for place, jobs in DELETED.items() if re.match(f"results/{place}", name))
        if due != expected:
            wrong[name] = due ^ expected
    assert wrong == {}


SETTINGS = {"record_results"}
ANOTHER = {job.replace("lora", "dora") for job in trained("lora") - END} | END
PREFIXED = ("train_adapter", "extract_prefix", "evaluate_torch", "add_prefix", "add_prefix_to_fp32")
HOSTED, KAITO = "hosted-openai-compatible", "kaito-lora"
ASKED = {f"{rule}_hosted {HOSTED}" for rule in ("ask", "score")}
SUBMITTED = {f"{rule}_hosted {HOSTED}" for rule in ("submit", "wait", "fetch")} | ASKED
ASKED_BEFORE = {f"{job} seed untuned" for job in ASKED}
LORA, CONFIG, EXPERIMENT = "config/techniques/lora.yaml", "config/config.yaml", Workspace.experiment
SCENARIO = "config/scenarios/classification.yaml"

# Each kind of change: the file, what is replaced in it, and the exact jobs that must run.
CHANGES = {
    "a line of the metrics": (
        ("scripts/snaketune/evaluation/metrics.py", "[float(label == true), 1]", "[float(label != true), 1]"),
        EVALUATIONS | PARITY | END,
    ),
    "a decorator": (
        ("scripts/snaketune/evaluation/parity.py", "@np.errstate(invalid=", "@np.errstate(over="),
        PARITY | REPORT,
    ),
    "a default": (
        ("scripts/snaketune/inference/decoding.py", "extra_tokens: int = 0", "extra_tokens: int = 1"),
        {"merge_adapter lora"} | after_merged("lora") | EVALUATIONS | PARITY | END,
    ),
    "a line of the training loop": (("scripts/snaketune/training/schedule.py", "0.1 + 0.9", "0.2 + 0.8"), FROM_BASE),
    "the tokens in memory at once": (
        (LORA, "learning_rate:", "micro_batch_tokens: 512\nlearning_rate:"),
        trained("lora"),
    ),
    "a merge of the whole model": (
        (LORA, "learning_rate:", "stream_merge: false\nlearning_rate:"),
        {"merge_adapter lora"} | after_merged("lora"),
    ),
    "an evaluation of each row alone": (
        (CONFIG, "speed_prompts:", "share_prompts: false\n  speed_prompts:"),
        EVALUATIONS | PARITY | END,
    ),
    "a budget of merging into 16 bits": (
        (CONFIG, "bf16: {kl_divergence: 0.05", "bf16: {kl_divergence: 0.06"),
        SETTINGS,
    ),
    "a technique's rank": ((LORA, "r: 8", "r: 4"), trained("lora")),
    "rank and alpha swapped": ((LORA, "r: 8\n    lora_alpha: 16", "r: 16\n    lora_alpha: 8"), trained("lora")),
    "a learning rate": ((LORA, "phi3-1m: 3.0e-3", "phi3-1m: 1.0e-3"), trained("lora")),
    "the learning rate of another model": ((LORA, "default: ", "phi-4-mini-instruct: 1.0e-4, default: "), REPORT),
    "the same number written otherwise": ((LORA, "3.0e-3", "0.003"), set()),
    "that jobs import for themselves": ((CONFIG, "tracking: []", "tracking: []\nshare_imports: false"), set()),
    "a technique's description": ((LORA, "description: Low", "description: Very low"), REPORT),
    "the epochs": ((CONFIG, "epochs: 2", "epochs: 1"), RUNS),
    "an early end": ((CONFIG, "epochs: 2", "epochs: 2\n  early_stopping_patience: 3"), RUNS),
    "a technique's threads": ((CONFIG, "tracking: []", "threads: {lora: 2}\ntracking: []"), trained("lora")),
    "how often a run is checkpointed": ((CONFIG, "checkpoint_steps: 100", "checkpoint_steps: 50"), REPORT),
    "tracking the trainings": ((CONFIG, "tracking: []", "tracking: [dvclive]"), set()),
    "intermediates that aren't kept": ((CONFIG, "keep_intermediates: true", "keep_intermediates: false"), SETTINGS),
    "the number of bootstrap samples": ((CONFIG, "bootstrap_samples: 10000", "bootstrap_samples: 9999"), PARITY | END),
    "int4's block size": (("config/exports/int4.yaml", "block_size: 32", "block_size: 64"), of_all(quantized, "int4")),
    "the report's template": (("report/report.html.j2", "</main>", "</main >"), REPORT),
    "a part of the report": (("report/page/section.html.j2", "<h3>Loss</h3>", "<h3>Losses</h3>"), REPORT),
    "what the report's page does": (("report/page/page.js", "const ROWS = 25", "const ROWS = 50"), REPORT),
    "the export's lock file": (("envs/export/requirements.txt", "onnx==", "onnx===="), of_all(exported)),
    "the lock file of Snakemake and DVC": (("envs/workflow/requirements.txt", "dvc==", "dvc===="), set()),
    "the scenario's prompt": ((SCENARIO, "Which area", "What area"), FROM_DATA),
    "the scenario's description": ((SCENARIO, "description: Name", "description: Tell {braces}"), REPORT),
    "the primary metric": ((SCENARIO, "metrics: [accuracy, macro_f1]", "metrics: [macro_f1, accuracy]"), PARITY | END),
    "the longest answer": ((SCENARIO, "metrics:", "max_new_tokens: 65\nmetrics:"), EVALUATIONS | PARITY | END),
    "a budget of the data gate": ((SCENARIO, "metrics:", "budgets: {majority: 0.9}\nmetrics:"), FROM_DATA),
    "phone numbers, in a built-in corpus": ((SCENARIO, "metrics:", "phone_regions: [DE]\nmetrics:"), SETTINGS),
    "how much may be cut off": ((SCENARIO, "metrics:", "budgets: {truncated: 0.02}\nmetrics:"), FROM_TOKENS),
    "the longest row": ((SCENARIO, "metrics:", "max_tokens: 500\nmetrics:"), FROM_TOKENS),
    "the code of the scenario's corpus": (("scripts/snaketune/corpora/areas.py", '"module"', '"class"'), FROM_DATA),
    "what the documentation's corpora share": (
        ("scripts/snaketune/corpora/docstrings.py", "MOST_EXAMPLES = ", "MOST_EXAMPLES = 1 + "),
        FROM_DATA,
    ),
    "the code of another corpus": (("scripts/snaketune/corpora/tunes.py", "LEAST_BARS", "FEWEST_BARS"), set()),
    "the corpus": ((CONFIG, "    networkx: networkx\n", ""), EVERYTHING),
    "another technique": ((EXPERIMENT, "- lora", "- lora\n- dora"), ANOTHER),
    "a removed technique": ((EXPERIMENT, "- lora\n", ""), END),
    "a hosted technique": (
        (EXPERIMENT, "- lora", f"- lora\n- {HOSTED}"),
        {f"convert_hosted {HOSTED} seed rows"} | SUBMITTED | ASKED_BEFORE | END,
    ),
    "a technique with a prefix, which is laid beside the untuned exports": (
        (EXPERIMENT, "- lora", "- lora\n- peft-prefix"),
        {f"{rule} peft-prefix" for rule in PREFIXED} | after_onnx("peft-prefix", "fp32", *QUANTIZED),
    ),
    "another seed": (
        (EXPERIMENT, "- 1", "- 1\n- 2"),
        {job.replace(t, f"{t} seed 2") for t in ("lora", "full") for job in trained(t) - END} | END,
    ),
    "no precisions": ((EXPERIMENT, "precisions:\n- fp32\n- int8\n- int4", "precisions: []"), END),
    "a benchmark": (
        (EXPERIMENT, "precisions:", "benchmark: {rounds: 2}\nprecisions:"),
        {f"benchmark_exports {t}" for t in ("base", "lora", "full")} | REPORT,
    ),
    "the number of cores and the profile": (
        ("profiles/default/config.yaml", "cores: all", "cores: 1\nkeep-going: false\nlatency-wait: 9"),
        set(),
    ),
    "a parity budget": ((CONFIG, "kl_divergence: 0.2", "kl_divergence: 0.3"), PARITY | REPORT),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_runs_what_it_can_touch_and_nothing_else(edited: Workspace, change: str) -> None:
    (name, old, new), expected = CHANGES[change]
    edited.edit(name, old, new)
    assert edited.pending() == expected


def test_comments_layout_and_words_run_nothing(edited: Workspace) -> None:
    for name in ("train.py", "snaketune/training/loop.py", "snaketune/core/files.py"):
        path = edited.path / "scripts" / name
        path.write_text("# why\n" + ast.unparse(ast.parse(path.read_text())))
    for name, old, new in (
        ("training/loop.py", "One run of a plan", "A run of a plan"),
        ("core/files.py", "no space left on the disk", "the disk is full"),
        ("core/files.py", "another process is using", "somebody is using"),
        ("data/tasks.py", "expected one tag for each of", "expected a tag for each of"),
        ("training/loop.py", "there is no checkpoint yet", "none was saved yet"),
        ("core/errors.py", "error: {error}", "Error: {error}"),
    ):
        edited.edit(f"scripts/snaketune/{name}", old, new)
    assert edited.pending() == set()


def test_a_moved_or_renamed_module_runs_nothing(edited: Workspace) -> None:
    scripts = edited.path / "scripts"
    (scripts / "snaketune/elsewhere").mkdir()
    for old, new in (("core/hashing", "elsewhere/hashing"), ("data/gate", "elsewhere/sifting")):
        (scripts / f"snaketune/{old}.py").rename(scripts / f"snaketune/{new}.py")
    for path in scripts.rglob("*.py"):
        path.write_text(path.read_text().replace("snaketune.core.hashing", "snaketune.elsewhere.hashing"))
    edited.edit("scripts/prepare_data.py", "from snaketune.data import gate", "from snaketune.elsewhere import sifting")
    edited.edit("scripts/prepare_data.py", "gate.", "sifting.")
    assert edited.pending() == set()


def test_a_template_replaced_by_an_older_file_is_seen(edited: Workspace) -> None:
    path = edited.path / "report/report.html.j2"
    path.write_text(path.read_text().replace("</main>", "</main >"))
    os.utime(path, (0, 0))
    assert edited.pending() == REPORT


PATH = f"config/techniques/{HOSTED}.yaml"
CHANGES_ELSEWHERE = {
    "consent to send": (("config/experiments/test.yaml", "confirm: false", "confirm: true"), set()),
    "a price": ((PATH, "# price: {per_million_training_tokens: …", "price: {per_million_training_tokens: 1"), SETTINGS),
    "a line of what submits": (("scripts/submit_hosted.py", "indent=1", "indent=2"), SUBMITTED | END),
    "another attempt": ((PATH, "service:", "attempt: 2\nservice:"), SUBMITTED | END),
    "where the tuned model answers": (
        (PATH, "untuned: true", "untuned: true\n  deployment: d"),
        ASKED | ASKED_BEFORE | END,
    ),
    "a line of what talks to the cluster": (("scripts/tune_on_kaito.py", "4 * arguments", "5 * arguments"), set()),
    "the rank that KAITO trains": (
        (f"config/techniques/{KAITO}.yaml", "r: 8", "r: 4"),
        {f"{rule} {KAITO}" for rule in ("write_kaito", "tune_on_kaito", "receive_adapter", "merge_adapter")}
        | {f"evaluate_torch {KAITO}"}
        | END,
    ),
}


@pytest.mark.parametrize("change", CHANGES_ELSEWHERE)
def test_a_change_of_what_trains_elsewhere_runs_what_it_can_touch(edited_elsewhere: Workspace, change: str) -> None:
    (name, old, new), expected = CHANGES_ELSEWHERE[change]
    edited_elsewhere.edit(name, old, new)
    assert edited_elsewhere.pending() == expected


def test_plans_and_manifests_of_what_isnt_there_are_one_message(edited: Workspace) -> None:
    for target, told in (
        ("plan_hosted", "no technique of this experiment is hosted"),
        ("kaito_manifests", "no technique of this experiment has"),
        ("kaito_serving", "is missing in the experiment"),
    ):
        shown = edited.forked("--dry-run", target)
        text = shown.stdout + shown.stderr
        assert (shown.returncode, told in text, "Traceback" in text) == (1, True, False), text


def test_another_precision_runs_only_its_own_jobs(edited: Workspace) -> None:
    export = yaml.safe_load((edited.path / "config/exports/int4.yaml").read_text())
    export["options"]["block_size"] = 128
    edited.write("config/exports/int4-128.yaml", export)
    edited.edit(edited.experiment, "- int4", "- int4\n- int4-128")
    assert edited.pending() == of_all(quantized, "int4-128")


def test_a_genai_precision_is_built_from_the_merged_model_and_never_from_a_prefix(edited: Workspace) -> None:
    edited.edit(edited.experiment, "- int4", "- int4\n- genai-int4\n- genai-auto")
    jobs = {
        f"{rule} {technique} {precision}"
        for technique in ("base", "lora", "full")
        for precision in ("genai-int4", "genai-auto")
        for rule in ("build_genai", "evaluate_genai")
    }
    assert edited.pending() == jobs | PARITY | END
    edited.edit(edited.experiment, "- lora", "- peft-prefix")
    assert not {job for job in edited.pending() if "prefix genai" in job}


def test_a_calibrated_precision_reads_the_training_rows(edited: Workspace) -> None:
    edited.edit(edited.experiment, "- int4", "- int4\n- int8-qdq\n- auto")
    assert edited.pending() == of_all(quantized, "int8-qdq") | of_all(quantized, "auto")
    edited.edit(SCENARIO, "metrics:", "max_tokens: 500\nmetrics:")
    assert {"quantize_onnx base int8-qdq", "quantize_onnx base auto"} < edited.pending()
    assert "quantize_onnx base int8" not in edited.pending()


def test_further_seeds_of_one_technique_train_it_alone(edited: Workspace) -> None:
    edited.edit(edited.experiment, "seeds:", "more_seeds: {phi3-1m: {classification: {lora: [1, 2]}}}\nseeds:")
    pending = edited.pending()
    assert {job.replace(" seed 2", "") for job in pending} == trained("lora")
    assert {job for job in pending if "seed 2" not in job} == END


def test_a_renamed_scenario_is_made_under_its_name_from_the_same_base(edited: Workspace) -> None:
    (edited.path / SCENARIO).rename(edited.path / "config/scenarios/areas.yaml")
    edited.edit(edited.experiment, "seeds:", "scenarios:\n- areas\nseeds:")
    assert edited.pending() == FROM_DATA


def test_another_scenario_in_front_exports_no_untuned_model_again(edited: Workspace) -> None:
    shutil.copyfile(edited.path / SCENARIO, edited.path / "config/scenarios/areas.yaml")
    edited.edit(edited.experiment, "seeds:", "scenarios:\n- areas\n- classification\nseeds:")
    assert edited.pending() == FROM_DATA
    switchable = jobs_due(edited.plans("export_adapters"))
    assert "export_switchable_base" in switchable
    assert "export_onnx base" not in switchable


def test_adapters_on_an_exports_numbers_share_one_base_and_are_shipped_beside_it(edited: Workspace) -> None:
    edited.edit(
        edited.experiment, "seeds:\n- 1", "seeds:\n- 1\nmore_seeds: {phi3-1m: {classification: {lora-int4: [2]}}}"
    )
    edited.edit(edited.experiment, "- lora\n", "- lora\n- lora-int4\n")
    of_a_run = {
        *(f"{rule} lora-int4" for rule in ("train_adapter", "merge_adapter", "evaluate_torch", "export_onnx")),
        *(f"evaluate_onnx lora-int4 {precision}" for precision in ("fp32", "int4")),
        *(f"{rule} lora-int4" for rule in ("export_shipped_adapter", "check_parity")),
    }
    pending = edited.pending()
    assert {job.replace(" seed 2", "") for job in pending} == {
        "dequantize_base",
        "export_quantized_base",
    } | of_a_run | END


def test_switching_branches_back_and_forth_runs_nothing(edited: Workspace) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=edited.path, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    git("add", "config", "scripts", "rules", "Snakefile", "report", "envs")
    git("commit", "--message=one")
    git("switch", "--create=other")
    edited.edit(LORA, "r: 8", "r: 4")
    edited.edit("scripts/snaketune/training/schedule.py", "0.1 + 0.9", "0.2 + 0.8")
    git("commit", "--all", "--message=other")
    assert edited.pending() == FROM_BASE
    git("switch", "main")
    assert edited.pending() == set()


def test_touching_a_file_runs_nothing(finished: Workspace) -> None:
    for name in (
        "results/data/classification/manifest.json",
        "results/models/phi3-1m/base/model.safetensors",
        LORA,
        "report/report.html.j2",
        "scripts/train.py",
    ):
        (finished.path / name).touch()
    assert finished.pending() == set()


@pytest.mark.parametrize("keep_times", [False, True], ids=["edited", "replaced by a copy of equal age"])
@pytest.mark.parametrize("row", [0, 59], ids=["first", "last"])
def test_one_byte_of_the_users_rows_makes_the_data_again_whatever_its_times(
    edited_others: Workspace, row: int, keep_times: bool
) -> None:
    path = edited_others.path / "data/tickets.jsonl"
    times = path.stat()
    lines = path.read_text().splitlines(keepends=True)
    lines[row] = lines[row].replace("ticket", "tickes")
    path.write_text("".join(lines))
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert edited_others.pending() == FROM_DATA


def test_phone_regions_check_the_users_rows_again_and_touching_them_does_not(edited_others: Workspace) -> None:
    (edited_others.path / "data/tickets.jsonl").touch()
    assert edited_others.pending() == set()
    edited_others.edit("config/scenarios/mine.yaml", "task:", "phone_regions: [DE]\ntask:")
    assert edited_others.pending() == FROM_DATA


def test_another_revision_of_a_model_is_fetched_and_trained_again(edited_others: Workspace) -> None:
    text = (edited_others.path / "config/models/phi-4-mini-instruct.yaml").read_text()
    revision = yaml.safe_load(text)["revision"]
    edited_others.edit("config/models/phi-4-mini-instruct.yaml", revision, revision[::-1])
    assert edited_others.pending() == {"fetch_model"} | after_merged("base") | FROM_TOKENS


def restored(finished: Workspace, path: Path) -> Workspace:
    """A clone with the results brought back: other times, in any order, and Snakemake's records."""
    clone = Workspace.make(path, UNTRAINED)
    for name in ("results", ".snakemake/metadata"):
        shutil.copytree(finished.path / name, clone.path / name)
    files = [path for path in (clone.path / "results").rglob("*") if path.is_file()]
    files.sort(key=lambda path: str(path)[::-1])
    for age, file in enumerate(files):
        os.utime(file, (time.time() - 60 - age, time.time() - 60 - age))
    return clone


def test_a_clone_with_restored_results_runs_nothing_then_only_what_is_added(
    finished: Workspace, tmp_path: Path
) -> None:
    clone = restored(finished, tmp_path)
    assert clone.pending() == set()
    clone.edit(clone.experiment, "- lora", "- lora\n- dora")
    assert clone.pending() == ANOTHER


def another_python() -> str | None:
    """A newer Python of this machine than this one, on the path or with pyenv."""
    for minor in (13, 12, 14):
        name = f"python3.{minor}"
        if (minor == sys.version_info.minor) or shutil.which(name) is None:
            continue
        command = [name, "-c", "import sys; print(sys.executable)"]
        for version in ("", *(f"3.{minor}.{patch}" for patch in range(20))):
            environment = os.environ | ({"PYENV_VERSION": version} if version else {})
            shown = subprocess.run(command, capture_output=True, text=True, env=environment)
            if shown.returncode == 0:
                return shown.stdout.strip()
    return None


def test_a_clone_restored_under_another_python_runs_nothing(finished: Workspace, tmp_path: Path) -> None:
    python = another_python()
    if python is None:
        pytest.skip("there is no other Python 3.12 to 3.14 on this machine")
    clone = restored(finished, tmp_path / "clone")
    uv, locks = Path(sys.executable).with_name("uv"), REPOSITORY / "envs/workflow/requirements.txt"
    subprocess.run([uv, "venv", "--quiet", "--python", python, tmp_path / "venv"], check=True)
    packages = ["snakemake", "snakemake-executor-plugin-slurm", "pydantic", "safetensors", "numpy", "pyyaml"]
    command = [uv, "pip", "install", "--quiet", "--python", tmp_path / "venv/bin/python", *packages, "-c", locks]
    subprocess.run(command, check=True, env={**os.environ, **pip_settings(sys.executable)})
    command = [tmp_path / "venv/bin/python", "-m", "snakemake", "--configfile", clone.experiment, "--summary"]
    shown = subprocess.run(command, cwd=clone.path, capture_output=True, text=True, check=True).stdout
    assert len(shown.splitlines()) > 100
    assert "update pending" not in shown
