"""What rules read and make, asked of the objects that they are written with."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from snakemake.iocontainers import Wildcards
from snakemake.shell import shell

from snaketune.core import contract, errors, gpus
from snaketune.core.errors import UserError
from snaketune.core.file_digests import lock_digest
from snaketune.core.files import read_yaml, sha256
from snaketune.dag import patterns, process
from snaketune.dag.inputs import Inputs
from snaketune.dag.job_params import JobParams, not_a_trigger
from snaketune.dag.recipes import Recipes
from snaketune.dag.resources import SNAKEMAKES, JobResources, memory_of_attempt, minutes_of_attempt
from snaketune.dag.targets import Targets, required

ROOT = Path(__file__).parents[3]
CONFIG = read_yaml(ROOT / "config/config.yaml") | {
    "techniques": ["full", "lora", "peft-prefix"],
    "seeds": [1, 2],
    "precisions": ["fp32", "int8", "genai-int4"],
}
CELL = {"model": "phi3-1m", "scenario": "classification", "seed": "1"}
RUN = "results/runs/phi3-1m/classification"


def matrix(**changes: Any) -> Recipes:
    return Recipes(CONFIG | changes, ROOT)


def cell(technique: str, **more: str) -> Wildcards:
    return Wildcards(fromdict={**CELL, "technique": technique, **more})


def test_what_the_manifest_of_all_results_names_is_made_and_covers_every_file() -> None:
    recipe = matrix(benchmark={"rounds": 2}).record_recipe()
    made, named = set(contract.every_file(recipe, True)), set(contract.recorded(recipe))
    assert named < made
    manifests = {str(Path(name).parent) for name in named if name.endswith("/manifest.json")}
    covered = {name for name in made if any(str(parent) in manifests for parent in Path(name).parents)}
    assert made - covered - named == {"params.yaml", "manifest.json", "provenance.json"}


def test_temporary_files_are_recorded_by_their_manifests_and_asked_for_by_nobody() -> None:
    recipe = matrix().record_recipe()
    left = set(contract.every_file(recipe, True)) - set(contract.every_file(recipe, False))
    assert left
    assert all(Path(name).parent.as_posix().endswith(contract.TEMPORARY) for name in left)
    assert {name for name in left if name.endswith("manifest.json")} <= set(contract.recorded(recipe))


def test_a_run_that_can_not_be_merged_ends_with_its_adapter_beside_the_base(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    technique = {"description": "BEFT", "adapter": {"type": "beft", "options": {}}, "learning_rate": 1e-3}
    (tmp_path / "config/techniques/mine.yaml").write_text(json.dumps(technique))
    found = Recipes(CONFIG | {"techniques": ["lora", "mine"], "precisions": []}, tmp_path)
    assert (found.merged, found.prefixed, found.switched) == (["base", "lora"], [], ["lora"])
    run = "runs/phi3-1m/classification/mine/seed-1"
    made = {name.removeprefix(f"{run}/") for name in contract.every_file(found.record_recipe(), True) if run in name}
    evaluated = {f"evaluation/torch.{end}" for end in ("json", "predictions.jsonl", "logits.safetensors")}
    trained = {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "train.jsonl", "resources.json"}
    assert made == evaluated | trained | {"manifest.json", "provenance.json"}
    read = Inputs(found).evaluated_model(cell("mine"))
    assert read["manifests"] == [f"{patterns.BASE}/manifest.json", f"{patterns.RUN}/manifest.json"]
    assert read["adapter"] == [f"{patterns.RUN}/adapter/adapter_model.safetensors"]


def test_an_export_whose_bits_are_chosen_has_more_memory_and_time_and_the_budget_as_its_gate() -> None:
    found = matrix(precisions=["fp32", "int4-gptq", "auto"])
    needs = JobResources(found, None)
    for need in (needs.memory("quantize"), needs.minutes("quantize")):
        other, chosen = (need(cell("lora", precision=name), 1) for name in ("int4-gptq", "auto"))
        assert other < chosen
    assert found.parity_recipe("classification", "lora")["budgets"]["onnx-fp32-auto"] == {"kl_divergence": 0.02}


def test_targets_leave_out_what_an_experiment_has_not() -> None:
    assert Targets(matrix(precisions=[])).parities() == []
    assert Targets(matrix(precisions=["fp32"])).packages() == []
    packages = Targets(matrix(package={"precision": "genai-int4"})).packages()
    assert {name.split("/")[4] for name in packages} == {"base", "full", "lora"}
    assert Targets(matrix()).runtime_adapters()[0] == f"{RUN}/lora/seed-1/onnx/adapter/adapter.onnx_adapter"


def test_a_target_without_files_ends_planning_and_one_with_files_is_passed_on() -> None:
    assert required(["a"], "never said") == ["a"]
    with pytest.raises(SystemExit):
        required([], "why")


def test_another_seed_or_rate_is_another_training_and_the_code_is_part_of_it() -> None:
    params = JobParams(matrix(), ROOT)
    own = json.loads(params.training(cell("lora")))
    assert own["seed"] == 1
    assert len(own["code"]) == len(own["environment"]) == 64
    other = json.loads(params.training(cell("lora", seed="2")))
    assert {key for key in own if own[key] != other[key]} == {"seed"}
    tried = json.loads(params.training_at_rate(cell("lora", rate="0.5")))
    assert (tried["learning_rate"], tried["epochs"], tried["keep_weights"]) == (0.5, 1, False)


def test_a_marker_that_keeps_a_package_to_linux_is_no_other_environment(tmp_path: Path) -> None:
    locks = [tmp_path / name for name in ("before", "after", "newer")]
    for lock, pin in zip(locks, ("a==1", "a==1 ; sys_platform == 'linux'", "a==2"), strict=True):
        lock.write_text(f"{pin}\nb==1 ; python_full_version < '3.12'\n")
    before, after, newer = map(lock_digest, locks)
    assert before == sha256(locks[0]) == after != newer


def test_a_param_that_is_no_trigger_is_a_function_of_output() -> None:
    for value in (3, lambda wildcards: 3):
        assert not_a_trigger(value)(wildcards=None, output=None) == 3


def test_several_ranks_or_deepspeed_need_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    params = JobParams(matrix(techniques=["lora", "deepspeed"], ranks={"lora": 2}), ROOT)
    assert params.launcher(cell("lora", ranks="1"), {}) == "python"
    assert "--nodes 3 --ranks 2" in params.launcher(cell("lora"), {"nodes": 3})
    assert "launch.py" in params.launcher(cell("deepspeed", ranks="1"), {})
    # A cluster hands out GPUs itself; on this machine a job looks for free ones.
    assert params.launcher(cell("lora", ranks="1"), {"gpu": 1}) == "python"
    monkeypatch.setenv(gpus.GPUS, "0,1")
    assert params.launcher(cell("lora", ranks="1"), {"gpu": 1}) == 'python "$SNAKETUNE/scripts/on_gpu.py" 1 python'
    started = 'python "$SNAKETUNE/scripts/on_gpu.py" 2 python "$SNAKETUNE/scripts/launch.py" --nodes 1'
    assert params.launcher(cell("lora"), {"gpu": 1}).startswith(started)
    assert params.launcher(cell("lora", ranks="1"), {"gpu": 0}) == "python"


def test_memory_grows_with_attempts_and_models_and_gpus_are_asked_for_if_they_are_counted() -> None:
    assert [memory_of_attempt(1000, attempt) for attempt in (1, 2, 3)] == [1000 + SNAKEMAKES, 1920, 2560]
    counted, uncounted = (
        SimpleNamespace(global_resources=found)
        for found in ({"gpu": SimpleNamespace(value=8)}, {"gpu": SimpleNamespace(value=0)})
    )
    needs = JobResources(matrix(), counted)
    asked = [one.training_gpus(cell("lora")) for one in (needs, JobResources(matrix(), uncounted))]
    assert asked == [1, 0]
    assert [minutes_of_attempt(90, attempt) for attempt in (1, 2, 3)] == [90, 180, 360]
    own, services = (needs.memory("torch")(one, 1) for one in (cell("lora"), cell("lora", model="gpt")))
    assert own > services


def test_a_training_of_two_cores_starts_before_two_of_one() -> None:
    needs = JobResources(matrix(techniques=["lora", "zero3"]), None)
    wide, narrow = (needs.training_priority(cell(name)) for name in ("zero3", "lora"))
    assert wide > 2 * narrow > 0


def test_more_ranks_than_gpus_are_said_while_planning() -> None:
    due = [("train_all_weights", cell("zero3")), ("train_adapter", cell("lora")), ("merge_adapter", cell("lora"))]
    told = {}
    for count in (0, 1, 2):
        workflow = SimpleNamespace(global_resources={"gpu": SimpleNamespace(value=count)})
        told[count] = JobResources(matrix(techniques=["lora", "zero3"]), workflow).short_of_gpus(due)
    assert (told[0], told[2]) == ([], [])
    assert [one.split(" in the")[0] for one in told[1]] == [
        "Training zero3 takes 2 GPUs, one for each rank, and there is 1: set `ranks: {zero3: 1}`"
    ]


def test_device_and_precision_of_an_evaluation_are_those_of_merged_models_alone() -> None:
    default, chosen = (
        matrix(precisions=[], **changes) for changes in ({}, {"evaluation": {"device": "cuda", "precision": "bf16"}})
    )
    torch, onnx = cell("lora"), cell("lora", precision="int8")
    asked = [json.loads(JobParams(chosen, ROOT).evaluation(one)) for one in (torch, onnx)]
    assert [(one.get("device"), one.get("precision")) for one in asked] == [("cuda", "bf16"), (None, None)]
    assert not {"device", "precision"} & json.loads(JobParams(default, ROOT).evaluation(torch)).keys()


def test_an_evaluation_asks_for_a_gpu_if_its_device_is_one() -> None:
    asked, told = {}, {}
    for device, count in (("auto", 0), ("auto", 1), ("cpu", 1), ("cuda", 0), ("cuda", 1)):
        workflow = SimpleNamespace(global_resources={"gpu": SimpleNamespace(value=count)})
        needs = JobResources(matrix(evaluation={"device": device}), workflow)
        asked[device, count] = needs.evaluation_gpus(cell("lora"))
        told[device, count] = " ".join(needs.short_of_gpus([("evaluate_torch", cell("lora"))]))
    assert list(asked.values()) == [0, 1, 0, 1, 1]
    assert "evaluation.device: cuda" in told.pop(("cuda", 0))
    assert set(told.values()) == {""}


def test_a_recipe_that_grows_with_the_matrix_is_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "scripts"))
    script = tmp_path / "script.py"
    script.write_text(
        "from snaketune.core import cli\nprint(len(cli.job_parser('', 'cells').parse_args().recipe['cells']))"
    )
    recipe = json.dumps({"cells": [["it's a {model}", "scenario", "technique", seed] for seed in range(4000)]})
    assert len(recipe) > 2**17
    # As Snakemake runs a rule's command.
    shell(f"{sys.executable} {script} --recipe - > out <<< {{recipe:q}}")
    assert (tmp_path / "out").read_text() == "4000\n"


def test_every_rule_about_the_whole_matrix_reads_its_recipe_from_standard_input() -> None:
    rules = [
        text for path in (ROOT / "rules").glob("*.smk") for text in re.split(r"^rule ", path.read_text(), flags=re.M)
    ]
    whole = [text for text in rules if re.search(r"recipe=job_params\.(report|record|encode\(.*MATRIX)", text)]
    assert len(whole) == 5
    assert [text for text in whole if "--recipe -" not in text or "<<< {params.recipe:q}" not in text] == []


def test_no_rule_looks_for_a_file_of_the_checkout_in_the_working_directory() -> None:
    folders = re.compile(r"(?<![\w./])(?:scripts|envs|report|tools)/[\w./]*")
    rules = {path.name: path.read_text().split('"""', 2)[2] for path in (ROOT / "rules").rglob("*.smk")}
    assert {name: found for name, text in rules.items() if (found := folders.findall(text))} == {}


@pytest.mark.parametrize(
    ("log", "restarts"),
    [
        ("reads\nerror: a.jsonl:1: not JSON\n", 0),
        ("error: 2 faults in the data\n  a.jsonl:1: not JSON\n  a.jsonl:2: not JSON\n", 0),
        (f"error: the hub can't be reached{errors.AGAIN}\n", 3),
        ("error: loss is nan\nE1127 23:59:24.121000 30788 api.py:1002] failed (exitcode: 1) local_rank: 0\n", 0),
        (f"error: stopped by a signal{errors.AGAIN}\nE1127 23:59:24.121000 30788 api.py:1002] failed\n", 3),
        ("error: of a library\nstep 1\n", 3),
        ("Traceback (most recent call last):\nMemoryError\n", 3),
        ("", 3),
    ],
)
def test_a_users_mistake_is_not_tried_again_and_all_else_is(tmp_path: Path, log: str, restarts: int) -> None:
    path, rule = tmp_path / "job.log", SimpleNamespace(restart_times=3)
    job = SimpleNamespace(log=[str(path)], rule=rule)
    assert process._restarts(job) == 3
    path.write_text(log)
    assert process._restarts(job) == restarts
    os.utime(path, (0, 0))
    assert process._restarts(job) == 3


def test_a_message_says_whether_another_try_may_help(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: UserError) -> str:
        with pytest.raises(SystemExit):
            errors.run(Mock(side_effect=error))
        return capsys.readouterr().err

    assert errors.is_users_mistake(fails(UserError("wrong\n  here")))
    assert not errors.is_users_mistake(fails(UserError("the disk is full", passing=True)))
