"""What one run of the whole workflow must hold."""

import csv
import fcntl
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from support.experiments import ALL_WEIGHTS, FURTHER, TECHNIQUES, TWO_RANKS
from support.workspace import Workspace, python

from snaketune.core.layout import MODEL_FILES
from snaketune.core.manifest import record

BACKENDS = ["torch", "onnx-fp32", "onnx-int8", "onnx-int4"]
COLUMNS = (
    "model,scenario,technique,seed,backend,metric,higher_is_better,value,ci_low,ci_high,n,base_value,delta,delta_ci_low,delta_ci_high,"
    "trainable_parameters,total_parameters,world_size,train_tokens,train_seconds,tokens_per_second,peak_memory_bytes,artifact_bytes,"
    "decode_tokens_per_second,latency_p50_ms"
)


def run_of(workspace: Workspace, technique: str) -> Path:
    seed = 0 if technique == "base" else 1
    return workspace.path / f"results/runs/test-phi3/test-areas/{technique}/seed-{seed}"


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def summary(workspace: Workspace) -> list[dict[str, str]]:
    with (workspace.path / "results/summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_summary_has_a_row_for_each_technique_and_backend(finished: Workspace) -> None:
    assert (finished.path / "results/summary.csv").read_text().splitlines()[0] == COLUMNS
    assert [(row["technique"], row["backend"]) for row in summary(finished)] == [
        (t, b) for t in ["base", *TECHNIQUES] for b in BACKENDS
    ]
    for row in summary(finished):
        assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
        assert int(row["artifact_bytes"]) > 0
        assert (row["delta"] == "") == (row["technique"] == "base")


def test_values_are_those_of_the_kept_predictions(finished: Workspace) -> None:
    for row in summary(finished):
        lines = (
            (run_of(finished, row["technique"]) / f"evaluation/{row['backend']}.predictions.jsonl")
            .read_text()
            .splitlines()
        )
        predictions = [json.loads(line) for line in lines]
        assert len(predictions) == int(row["n"])
        assert np.mean([p["reference"] == p["prediction"] for p in predictions]) == pytest.approx(float(row["value"]))


def test_every_technique_saw_the_same_tokens(finished: Workspace) -> None:
    seen = [
        [
            (e["step"], e["tokens"])
            for e in map(json.loads, (run_of(finished, t) / "train.jsonl").read_text().splitlines())
        ]
        for t in TECHNIQUES
    ]
    assert all(curve == seen[0] for curve in seen)


def test_adapters_train_a_share_and_all_weights_train_all(finished: Workspace) -> None:
    for technique in TECHNIQUES:
        resources = read(run_of(finished, technique) / "resources.json")
        share = resources["trainable_parameters"] / resources["total_parameters"]
        assert share == 1 if technique in ALL_WEIGHTS else 0 < share < 0.2
        assert len(resources["ranks"]) == resources["world_size"] == (2 if technique in TWO_RANKS else 1)


def test_zero3_holds_half_of_the_model_states_on_each_rank(finished: Workspace) -> None:
    whole, sharded = (read(run_of(finished, t) / "resources.json")["ranks"][0] for t in ("full", "zero3"))
    for kind in ("weight_bytes", "gradient_bytes"):
        assert sharded[kind] == pytest.approx(whole[kind] / 2, rel=0.02)


@pytest.mark.parametrize("technique", ["deepspeed", "zero3"])
def test_deepspeed_ends_with_the_weights_of_one_process(finished: Workspace, technique: str) -> None:
    one, other = (load_file(run_of(finished, t) / "model/model.safetensors") for t in ("full", technique))
    assert one.keys() == other.keys()
    start = load_file(finished.path / "results/models/test-phi3/base/model.safetensors")
    assert max(np.abs(one[name] - start[name]).max() for name in one) > 1e-3, "training changed nothing"
    assert max(np.abs(one[name] - other[name]).max() for name in one) < 1e-4


def test_exports_agree_with_their_parents(finished: Workspace) -> None:
    for technique in ["base", *TECHNIQUES]:
        hops = read(run_of(finished, technique) / "parity.json")["hops"]
        assert ("adapter-merged" in hops) == (technique not in ["base", *ALL_WEIGHTS])
        for name, hop in hops.items():
            if name in ("adapter-merged", "merged-onnx-fp32"):
                assert hop["largest_logit_difference"] < 1e-3, (technique, name)
        assert hops["onnx-fp32-int8"]["share_of_fp32_bytes"] < 0.5


def test_running_again_does_nothing(finished: Workspace) -> None:
    again = finished.forked("--cores", "2")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout + again.stderr


def test_every_rule_kept_its_log_and_benchmark(finished: Workspace) -> None:
    made = {rule for rule, _ in finished.plans().values()}
    assert len(made) >= 15
    logs = list((finished.path / "logs").rglob("*.log"))
    benchmarks = list((finished.path / "logs/benchmarks").rglob("*.tsv"))
    assert len(logs) == len(benchmarks) > 80


def test_the_report_stands_alone(finished: Workspace) -> None:
    page = (finished.path / "results/report.html").read_text()
    assert not re.search(r"<(script|link|img|iframe)\b", page)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", page)
    assert "url(" not in page.replace("url(#", "")
    assert ("Recommended:" in page) != ("No difference shown" in page)
    for technique in TECHNIQUES:
        assert f"<td>{technique}</td>" in page


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium isn't installed")
def test_the_report_opens_in_a_browser_offline(finished: Workspace, tmp_path: Path) -> None:
    shot = tmp_path / "report.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    page = (finished.path / "results/report.html").as_uri()
    shown = subprocess.run(
        ["chromium", *flags, "--dump-dom", page], capture_output=True, text=True, check=True, timeout=300
    )
    assert shown.stdout.count("<svg") == 5
    subprocess.run(
        ["chromium", *flags, f"--screenshot={shot}", "--window-size=1200,1600", page],
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert shot.stat().st_size > 20_000


def training(
    workspace: Workspace, out: Path, technique: str = "lora", checkpoint_steps: int = 100, **changes: Any
) -> list[str]:
    """The command of train.py by hand, with the recipe that a finished run recorded."""
    recipe = {**read(run_of(workspace, technique) / "manifest.json")["recipe"], **changes}
    launcher = [python()]
    if recipe["world_size"] > 1:
        launcher += ["scripts/launch.py", "--ranks", str(recipe["world_size"])]
    command = [*launcher, "scripts/train.py", "--recipe", json.dumps(recipe), "--work", str(out / "work")]
    command += ["--checkpoint-steps", str(checkpoint_steps), "--base-directory", "results/models/test-phi3/base"]
    command += ["--tokens-directory", "results/tokens/test-phi3/test-areas/training"]
    return [*command, "--output-directory", str(out / "run")]


def train(workspace: Workspace, out: Path, technique: str = "lora", **changes: Any) -> subprocess.CompletedProcess[str]:
    command = training(workspace, out, technique, **changes)
    return subprocess.run(command, cwd=workspace.path, capture_output=True, text=True, check=False)


def test_two_processes_never_train_one_run(finished: Workspace, tmp_path: Path) -> None:
    (tmp_path / ".work.lock").touch()
    with (tmp_path / ".work.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused = train(finished, tmp_path)
    assert refused.returncode == 1
    assert "another process is at work" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_checkpoint_of_other_data_is_left_alone(finished: Workspace, tmp_path: Path) -> None:
    stale = tmp_path / "work/checkpoint-0000003"
    stale.mkdir(parents=True)
    recipe = read(run_of(finished, "lora") / "manifest.json")["recipe"]
    (stale / "state.json").write_text(
        json.dumps({"key": json.dumps([recipe, "another base", "other tokens"]), "step": 3})
    )
    trained = train(finished, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "resumes from step" not in trained.stdout


def test_training_by_hand_gives_the_same_bytes(finished: Workspace, tmp_path: Path) -> None:
    command = [*training(finished, tmp_path), "--live", str(tmp_path / "live")]
    subprocess.run(command, cwd=finished.path, check=True, capture_output=True)
    assert read(tmp_path / "live/metrics.json")["step"] == 8
    assert len((tmp_path / "live/plots/metrics/loss.tsv").read_text().splitlines()) == 9
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (run_of(finished, "lora") / name).read_bytes()


def test_wrong_target_modules_are_refused_by_the_model_itself(finished: Workspace, tmp_path: Path) -> None:
    failed = train(
        finished, tmp_path, adapter={"type": "lora", "options": {"r": 2, "target_modules": ["q_proj", "o_proj"]}}
    )
    assert failed.returncode == 1
    assert "target_modules q_proj match no linear layer of this model" in failed.stderr
    assert "Traceback" not in failed.stderr


def export(workspace: Workspace, run: Path, honest: bool) -> None:
    """Export merged/ of a run; dishonestly, without the keys that the exporter's transformers reads."""
    shutil.rmtree(run / "onnx", ignore_errors=True)
    patch = "" if honest else "export_onnx.with_older_keys = dict; "
    script = run.parent / "export.py"
    script.write_text(f"import sys; sys.path.insert(0, 'scripts'); import export_onnx; {patch}export_onnx.main()")
    command = [python(), "scripts/make_environment.py", "--lock", "envs/export/requirements.txt", "--", script]
    command += ["--recipe", "{}", "--model-directory", run / "merged", "--output-directory", run / "onnx/fp32"]
    subprocess.run(list(map(str, command)), cwd=workspace.path, check=True, capture_output=True)


ROPES = {
    "another base": {"rope_theta": 100.0, "rope_type": "default", "partial_rotary_factor": 1.0},
    # Up to the original context, where its short factors hold; a traced graph has no others.
    "long-rope": {
        "rope_theta": 10000.0,
        "rope_type": "longrope",
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0 + i / 4 for i in range(16)],
        "long_factor": [2.0 + i for i in range(16)],
        "original_max_position_embeddings": 256,
    },
}


@pytest.mark.parametrize("rope", ROPES)
def test_the_parity_gate_catches_an_export_with_another_rope(finished: Workspace, tmp_path: Path, rope: str) -> None:
    run, root = tmp_path / "run", finished.path
    shutil.copytree(run_of(finished, "base"), run)
    shutil.copytree(root / "results/models/test-phi3/base", run / "merged")
    config = read(run / "merged/config.json")
    config["rope_parameters"] = ROPES[rope]
    config["original_max_position_embeddings"] = 256
    (run / "merged/config.json").write_text(json.dumps(config))
    record(run / "merged", {}, [], [path for path in (run / "merged").iterdir() if path.name in MODEL_FILES])
    recipe = yaml.safe_load((root / "config/config.yaml").read_text())["parity"] | {
        "primary_metric": "accuracy",
        "bootstrap_samples": 100,
        "confidence": 0.95,
        "budgets": {"merged-onnx-fp32": {"largest_logit_difference": 1e-3}},
    }
    figures = {"task": "classification", "threads": 1, "speed_prompts": 1, "speed_tokens": 1, "probe": recipe["probe"]}
    tokens = "results/tokens/test-phi3/test-areas/test"

    def script(name: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
        command = [python(), f"scripts/{name}", *map(str, arguments)]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)

    def evaluate(model: str, backend: str) -> None:
        told = ["--model", run / model, "--output", run / f"evaluation/{backend}.json", "--tokens-directory", tokens]
        evaluated = script("evaluate.py", "--recipe", json.dumps(figures), *told)
        assert evaluated.returncode == 0, evaluated.stderr

    evaluate("merged/model.safetensors", "torch")
    check = ["--recipe", json.dumps(recipe), "--run-directory", run, "--exports", run / "onnx/fp32/manifest.json"]
    check += ["--evidence", tmp_path / "evidence.json", "--output", tmp_path / "parity.json"]

    export(finished, run, honest=False)
    evaluate("onnx/fp32/model.onnx", "onnx-fp32")
    caught = script("check_parity.py", *check)
    assert caught.returncode == 1
    assert "merged-onnx-fp32: largest_logit_difference is" in caught.stderr
    assert "Traceback" not in caught.stderr
    assert read(tmp_path / "evidence.json")["over_budget_hops"] == ["merged-onnx-fp32"]
    assert not (tmp_path / "parity.json").exists()

    export(finished, run, honest=True)
    evaluate("onnx/fp32/model.onnx", "onnx-fp32")
    passed = script("check_parity.py", *check)
    assert passed.returncode == 0, passed.stderr
    assert read(tmp_path / "parity.json")["hops"]["merged-onnx-fp32"]["largest_logit_difference"] < 1e-3


def test_seeds_one_precision_and_a_gate_that_only_warns(finished: Workspace, tmp_path: Path) -> None:
    """Another experiment over the same data, in a copy: only what it adds is trained."""
    other = Workspace(tmp_path / "copy")
    shutil.copytree(finished.path, other.path, symlinks=True)
    experiment = yaml.safe_load((other.path / other.experiment).read_text())
    experiment |= {"techniques": ["lora"], "seeds": [1, 2], "precisions": ["fp32"], "keep_intermediates": False}
    experiment["parity"] = {"gate": "warn", "budgets": {"merged-onnx-fp32": {"largest_logit_difference": 1e-30}}}
    other.write(other.experiment, experiment)
    ran = other.forked("--cores", "2")
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-8000:]
    assert [(row["technique"], row["seed"], row["backend"]) for row in summary(other)] == [
        (technique, seed, backend)
        for technique, seed in (("base", "0"), ("lora", "1"), ("lora", "2"))
        for backend in ("torch", "onnx-fp32")
    ]
    first, second = (run_of(other, "lora").with_name(f"seed-{seed}") for seed in (1, 2))
    assert read(second / "parity.json")["over_budget_hops"] == ["merged-onnx-fp32"]
    assert "over budget" in (other.path / "results/report.html").read_text()
    assert not (second / "merged/model.safetensors").exists()
    assert not (second / "onnx/fp32/model.onnx_data").exists()
    name = "adapter/adapter_model.safetensors"
    assert (first / name).read_bytes() == (run_of(finished, "lora") / name).read_bytes()
    assert (first / name).read_bytes() != (second / name).read_bytes()


@pytest.mark.long
def test_the_further_techniques_train_and_are_compared_without_an_export(
    finished: Workspace, further: Workspace
) -> None:
    assert [row["technique"] for row in summary(further)] == ["base", "full", *FURTHER]
    ranks = {t: read(run_of(further, t) / "resources.json")["world_size"] for t in FURTHER}
    assert ranks == {t: 2 if t in TWO_RANKS else 1 for t in FURTHER}
    one, two = (load_file(run_of(further, t) / "model/model.safetensors") for t in ("full", "zero2"))
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-4
    alone, sharded = (
        load_file(run_of(w, t) / "adapter/adapter_model.safetensors")
        for w, t in ((finished, "lora"), (further, "lora-zero3"))
    )
    assert max(np.abs(alone[name] - sharded[name]).max() for name in alone) < 1e-4
    assert not (run_of(further, "zero2") / "onnx").exists()
