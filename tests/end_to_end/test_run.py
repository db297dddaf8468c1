"""What one run of the whole workflow must hold."""

import fcntl
import json
import re
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.experiments import ALL_WEIGHTS, FURTHER, SMALL, TECHNIQUES, TWO_RANKS, run_of
from support.workspace import Workspace, refusal_of

from snaketune.core.files import read_json, read_jsonl, write_json

BACKENDS = ["torch", "onnx-fp32", "onnx-int8", "onnx-int4"]
COLUMNS = (
    "model,scenario,technique,seed,backend,metric,higher_is_better,value,ci_low,ci_high,n,base_value,delta,delta_ci_low,delta_ci_high,"
    "trainable_parameters,total_parameters,world_size,train_tokens,train_seconds,tokens_per_second,peak_memory_bytes,artifact_bytes,"
    "decode_tokens_per_second,latency_p50_ms"
)


ADAPTER = "adapter/adapter_model.safetensors"


def largest_difference(one: Path, other: Path) -> float:
    """Of any two weights of two files."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(np.abs(first[name] - second[name]).max() for name in first)


def test_the_summary_has_a_row_for_each_technique_and_backend(finished: Workspace) -> None:
    assert (finished.path / "results/summary.csv").read_text().splitlines()[0] == COLUMNS
    rows = finished.summary()
    assert [(row["technique"], row["backend"]) for row in rows] == [*product(["base", *TECHNIQUES], BACKENDS)]
    for row in rows:
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
        assert int(row["artifact_bytes"]) > 0
        assert (row["delta"] == "") == (row["technique"] == "base")


def test_values_are_those_of_the_kept_predictions(finished: Workspace) -> None:
    for row in finished.summary():
        evaluation = run_of(finished, row["technique"]) / "evaluation"
        predictions = read_jsonl(evaluation / f"{row['backend']}.predictions.jsonl")
        assert len(predictions) == int(row["n"])
        assert np.mean([p["reference"] == p["prediction"] for p in predictions]) == pytest.approx(float(row["value"]))


def test_every_technique_saw_the_same_tokens(finished: Workspace) -> None:
    curves = [read_jsonl(run_of(finished, technique) / "train.jsonl") for technique in TECHNIQUES]
    seen = [[(entry["step"], entry["tokens"]) for entry in curve] for curve in curves]
    assert all(curve == seen[0] for curve in seen)


def test_adapters_train_a_share_and_all_weights_train_all(finished: Workspace) -> None:
    for technique in TECHNIQUES:
        resources = read_json(run_of(finished, technique) / "resources.json")
        share = resources["trainable_parameters"] / resources["total_parameters"]
        assert share == 1 if technique in ALL_WEIGHTS else 0 < share < 0.2
        assert len(resources["ranks"]) == resources["world_size"] == (2 if technique in TWO_RANKS else 1)


def test_zero3_holds_half_of_the_model_states_on_each_rank(finished: Workspace) -> None:
    whole, sharded = (read_json(run_of(finished, t) / "resources.json")["ranks"][0] for t in ("full", "zero3"))
    for kind in ("weight_bytes", "gradient_bytes"):
        assert sharded[kind] == pytest.approx(whole[kind] / 2, rel=0.02)


@pytest.mark.parametrize("technique", ["deepspeed", "zero3"])
def test_deepspeed_ends_with_the_weights_of_one_process(finished: Workspace, technique: str) -> None:
    one, other = (run_of(finished, name) / "model/model.safetensors" for name in ("full", technique))
    start = finished.path / "results/models/test-phi3/base/model.safetensors"
    assert largest_difference(one, start) > 1e-3, "training changed nothing"
    assert largest_difference(one, other) < 1e-4


def test_exports_agree_with_their_parents(finished: Workspace) -> None:
    for technique in ["base", *TECHNIQUES]:
        hops = read_json(run_of(finished, technique) / "parity.json")["hops"]
        assert ("adapter-merged" in hops) == (technique not in ["base", *ALL_WEIGHTS])
        for name, hop in hops.items():
            if name in ("adapter-merged", "merged-onnx-fp32"):
                assert hop["largest_logit_difference"] < 1e-3, (technique, name)
        assert hops["onnx-fp32-int8"]["share_of_fp32_bytes"] < 0.5


def test_running_again_does_nothing(finished: Workspace) -> None:
    assert "Nothing to be done" in finished.run()


def test_every_rule_kept_its_log_and_benchmark(finished: Workspace) -> None:
    assert len({rule for rule, _ in finished.plans().values()}) >= 15
    logs, benchmarks = (list((finished.path / "logs").rglob(f"*.{kind}")) for kind in ("log", "tsv"))
    assert len(logs) == len(benchmarks) > 80


def test_the_report_stands_alone(finished: Workspace) -> None:
    page = (finished.path / "results/report.html").read_text()
    own = re.sub(r"<script>.*?</script>|<script type=.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img|iframe)\b", own)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", own)
    assert ("recommended among these trained models" in page) != ("No difference shown</p>" in page)
    assert " jobs in " in own
    for technique in TECHNIQUES:
        assert f"<td>{technique}</td>" in page


def test_snakemakes_own_report_has_the_page_and_the_tables(finished: Workspace, tmp_path: Path) -> None:
    finished.run("--report", str(tmp_path / "own.html"))
    text = (tmp_path / "own.html").read_text()
    assert [name for name in ("report.html", "summary.csv", "loss.csv") if name not in text] == []


def train(workspace: Workspace, out: Path, *more: object, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Call train.py by hand, with the recipe that the finished run of LoRA recorded."""
    recipe = {**read_json(run_of(workspace) / "manifest.json")["recipe"], **changes}
    told = ["--recipe", json.dumps(recipe), "--work", out / "work", "--checkpoint-steps", 100, *more]
    told += ["--base-directory", "results/models/test-phi3/base", "--output-directory", out / "run"]
    return workspace.script("train.py", *told, "--tokens-directory", "results/tokens/test-phi3/test-areas/training")


def test_two_processes_never_train_one_run(finished: Workspace, tmp_path: Path) -> None:
    (tmp_path / ".work.lock").touch()
    with (tmp_path / ".work.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = train(finished, tmp_path)
    assert "another process is using" in refusal_of(refused)


def test_a_checkpoint_of_other_data_is_left_alone(finished: Workspace, tmp_path: Path) -> None:
    key = json.dumps([read_json(run_of(finished) / "manifest.json")["recipe"], "another base", "other tokens"])
    write_json(tmp_path / "work/checkpoint-0000003/state.json", {"key": key, "step": 3})
    trained = train(finished, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "resumes from step" not in trained.stdout


def test_training_by_hand_gives_the_same_bytes(finished: Workspace, tmp_path: Path) -> None:
    assert train(finished, tmp_path, "--track", "dvclive").returncode == 0
    (live,) = (finished.path / "work/tracking/dvclive").rglob("metrics.json")
    assert read_json(live)["step"] == 8
    assert len((live.parent / "plots/metrics/loss.tsv").read_text().splitlines()) == 9
    assert (tmp_path / "run" / ADAPTER).read_bytes() == (run_of(finished) / ADAPTER).read_bytes()


def test_wrong_target_modules_are_refused_by_the_model_itself(finished: Workspace, tmp_path: Path) -> None:
    adapter = {"type": "lora", "options": {"r": 2, "target_modules": ["q_proj", "o_proj"]}}
    refused = refusal_of(train(finished, tmp_path, adapter=adapter))
    assert "target_modules q_proj match no linear layer of this model" in refused


def test_seeds_one_precision_and_a_gate_that_only_warns(finished: Workspace, copy: Workspace) -> None:
    """Another experiment over the same data: only what it adds is trained."""
    experiment = {**SMALL, "techniques": ["lora"], "seeds": [1, 2], "precisions": ["fp32"], "keep_intermediates": False}
    experiment["parity"] = {"gate": "warn", "budgets": {"merged-onnx-fp32": {"largest_logit_difference": 1e-30}}}
    copy.write(copy.experiment, experiment)
    copy.run()
    assert [(row["technique"], row["seed"], row["backend"]) for row in copy.summary()] == [
        (*run, backend) for run in (("base", "0"), ("lora", "1"), ("lora", "2")) for backend in ("torch", "onnx-fp32")
    ]
    first, second = (run_of(copy).with_name(f"seed-{seed}") for seed in (1, 2))
    assert read_json(second / "parity.json")["over_budget_hops"] == ["merged-onnx-fp32"]
    assert "over budget" in (copy.path / "results/report.html").read_text()
    assert not (second / "merged/model.safetensors").exists()
    assert not (second / "onnx/fp32/model.onnx_data").exists()
    assert (first / ADAPTER).read_bytes() == (run_of(finished) / ADAPTER).read_bytes()
    assert (first / ADAPTER).read_bytes() != (second / ADAPTER).read_bytes()


@pytest.mark.long
def test_the_further_techniques_train_and_are_compared_without_an_export(
    finished: Workspace, further: Workspace
) -> None:
    assert [row["technique"] for row in further.summary()] == ["base", "full", *FURTHER]
    ranks = {t: read_json(run_of(further, t) / "resources.json")["world_size"] for t in FURTHER}
    assert ranks == {t: 2 if t in TWO_RANKS else 1 for t in FURTHER}
    one, two = (run_of(further, name) / "model/model.safetensors" for name in ("full", "zero2"))
    assert largest_difference(one, two) < 1e-4
    assert largest_difference(run_of(finished) / ADAPTER, run_of(further, "lora-zero3") / ADAPTER) < 1e-4
    assert not (run_of(further, "zero2") / "onnx").exists()
